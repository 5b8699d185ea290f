/*
 * floor: the kernel work of one `run true`, done the straightforward way.
 *
 *   floor ROOTFS NAME PROGRAM [ARGS...]
 *   floor -e PID PROGRAM [ARGS...]     of one `exec` in the container whose init is PID
 *
 * What a runtime must ask of the kernel for the benchmark's bundle, and nothing
 * else: no JSON, no state, no seccomp compiler (the filter is an array made at
 * build time), no clever ways (the pid is written to cgroup.procs, the filter is
 * a list). A runtime is measured against it; one that is cleverer can be below it.
 *
 *   parent                                 child
 *   clone3(pid mnt uts ipc net) ─────────► waits on a pipe
 *   per v1 hierarchy: mkdir, limits,
 *     pid to cgroup.procs
 *   writes the pipe ─────────────────────► unshare(cgroup); mounts, devices, pivot_root,
 *   waits                                  masked and read-only paths, lo up, hostname,
 *   rmdir per hierarchy                    capabilities, no_new_privs, filter, execve
 *
 * An exec is done in the shortest way known here, as there is none below: the child is born in
 * the container's pid namespace and v2 cgroup, enters the v1 cgroups by itself (no grace
 * period) and all other namespaces in one setns(2).
 *
 *   parent                                 child
 *   opens init and its cgroups
 *   setns(pid); clone3(into v2 cgroup) ──► "0" to each tasks file; setns(all others)
 *   waits                                  rights, filter, execve
 *
 * Needs root and cgroup v1 hierarchies under /sys/fs/cgroup; one that is missing
 * is left out. Any other failure ends it with the name of the call.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "floor_filter.h" /* static const struct sock_filter filter[] */

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CGROUPS "/sys/fs/cgroup"

static const char *const hierarchies[] = {
	"cpuset", "cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "pids", "systemd",
};
static int present[COUNT(hierarchies)];

static void die(const char *what)
{
	dprintf(2, "floor: %s: %s\n", what, strerror(errno));
	_exit(125);
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/* -- cgroups (parent) -- */

static void group_put(const char *hierarchy, const char *name, const char *file, const char *text)
{
	char path[512];
	snprintf(path, sizeof path, CGROUPS "/%s/%s/%s", hierarchy, name, file);
	put(path, text);
}

/* A new cpuset is empty; it takes over what its parent has. */
static void copy_cpuset(const char *name, const char *file)
{
	char path[512], text[256];
	snprintf(path, sizeof path, CGROUPS "/cpuset/%s", file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n < 0)
		die(path);
	close(fd);
	text[n] = 0;
	group_put("cpuset", name, file, text);
}

static void limit(const char *hierarchy, const char *name)
{
	static const char *const devices[] = {
		"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
		"c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm",
	};
	if (!strcmp(hierarchy, "memory")) {
		group_put(hierarchy, name, "memory.limit_in_bytes", "536870912");
	} else if (!strcmp(hierarchy, "cpu")) {
		group_put(hierarchy, name, "cpu.shares", "512");
		group_put(hierarchy, name, "cpu.cfs_period_us", "100000");
		group_put(hierarchy, name, "cpu.cfs_quota_us", "150000");
	} else if (!strcmp(hierarchy, "pids")) {
		group_put(hierarchy, name, "pids.max", "512");
	} else if (!strcmp(hierarchy, "cpuset")) {
		copy_cpuset(name, "cpuset.cpus");
		copy_cpuset(name, "cpuset.mems");
	} else if (!strcmp(hierarchy, "devices")) {
		group_put(hierarchy, name, "devices.deny", "a");
		for (size_t i = 0; i < COUNT(devices); i++)
			group_put(hierarchy, name, "devices.allow", devices[i]);
	}
}

static void enter_groups(const char *name, pid_t child)
{
	char path[512], pid[16];
	snprintf(pid, sizeof pid, "%d", child);
	for (size_t i = 0; i < COUNT(hierarchies); i++) {
		snprintf(path, sizeof path, CGROUPS "/%s/%s", hierarchies[i], name);
		if (mkdir(path, 0755) < 0) {
			if (errno == ENOENT || errno == EROFS)
				continue;
			die(path);
		}
		present[i] = 1;
		limit(hierarchies[i], name);
		group_put(hierarchies[i], name, "cgroup.procs", pid);
	}
}

static void remove_groups(const char *name)
{
	char path[512];
	for (size_t i = 0; i < COUNT(hierarchies); i++) {
		snprintf(path, sizeof path, CGROUPS "/%s/%s", hierarchies[i], name);
		for (int tries = 0; present[i] && rmdir(path) < 0; tries++) {
			if (errno != EBUSY || tries == 100)
				die(path);
			usleep(1000);
		}
	}
}

/* -- the container's file system (child) -- */

static void mnt(const char *source, const char *target, const char *type, unsigned long flags,
		const char *data)
{
	if (mount(source, target, type, flags, data) < 0)
		die(target);
}

static void make_dir(const char *path)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		die(path);
}

static void make_devices(void)
{
	static const struct {
		const char *path;
		int minor, major;
	} nodes[] = {
		{ "dev/null", 3, 1 }, { "dev/zero", 5, 1 },   { "dev/full", 7, 1 },
		{ "dev/tty", 0, 5 },  { "dev/random", 8, 1 }, { "dev/urandom", 9, 1 },
	};
	static const char *const links[][2] = {
		{ "pts/ptmx", "dev/ptmx" },	     { "/proc/self/fd", "dev/fd" },
		{ "/proc/self/fd/0", "dev/stdin" },  { "/proc/self/fd/1", "dev/stdout" },
		{ "/proc/self/fd/2", "dev/stderr" },
	};
	for (size_t i = 0; i < COUNT(nodes); i++)
		if (mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) < 0)
			die(nodes[i].path);
	for (size_t i = 0; i < COUNT(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0)
			die(links[i][1]);
}

static void mount_groups(void)
{
	const unsigned long flags = MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME;
	char path[128], data[64];
	mnt("tmpfs", "sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=755");
	for (size_t i = 0; i < COUNT(hierarchies); i++) {
		if (!present[i])
			continue;
		snprintf(path, sizeof path, "sys/fs/cgroup/%s", hierarchies[i]);
		make_dir(path);
		int named = !strcmp(hierarchies[i], "systemd");
		snprintf(data, sizeof data, "%s%s", named ? "none,name=" : "", hierarchies[i]);
		mnt("cgroup", path, "cgroup", flags | MS_RDONLY, data);
	}
	mnt(NULL, "sys/fs/cgroup", NULL, flags | MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
}

static void make_root(const char *rootfs)
{
	const unsigned long strict = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	mnt(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL);
	mnt(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL);
	if (chdir(rootfs) < 0)
		die(rootfs);
	mnt("proc", "proc", "proc", strict, NULL);
	mnt("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	make_dir("dev/pts");
	mnt("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
	    "newinstance,ptmxmode=0666,mode=0620,gid=5");
	make_dir("dev/shm");
	mnt("shm", "dev/shm", "tmpfs", strict, "mode=1777,size=65536k");
	make_dir("dev/mqueue");
	mnt("mqueue", "dev/mqueue", "mqueue", strict, NULL);
	mnt("sysfs", "sys", "sysfs", strict | MS_RDONLY, NULL);
	mount_groups();
	make_devices();
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		die("pivot_root");
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		die("leave the old root");
}

static void hide_paths(void)
{
	static const char *const readonly[] = {
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
	};
	static const char *const masked[] = {
		"/proc/acpi",	     "/proc/asound",	  "/proc/kcore",       "/proc/keys",
		"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
		"/proc/scsi",	     "/sys/firmware",
	};
	for (size_t i = 0; i < COUNT(readonly); i++) {
		if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL) < 0) {
			if (errno != ENOENT)
				die(readonly[i]);
			continue;
		}
		mnt(NULL, readonly[i], NULL,
		    MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	}
	for (size_t i = 0; i < COUNT(masked); i++) {
		if (mount("/dev/null", masked[i], NULL, MS_BIND, NULL) == 0 || errno == ENOENT)
			continue;
		if (errno != ENOTDIR)
			die(masked[i]);
		mnt("tmpfs", masked[i], "tmpfs", MS_RDONLY, NULL);
	}
}

/* -- the container's process (child) -- */

static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		die("loopback");
	request.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		die("loopback up");
	close(fd);
}

static void drop_rights(void)
{
	/* chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service
	 * net_raw sys_chroot mknod audit_write setfcap */
	static const unsigned keep[] = { 0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31 };
	uint32_t bits = 0;
	for (size_t i = 0; i < COUNT(keep); i++)
		bits |= 1u << keep[i];
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++)
		if ((cap > 31 || !(bits & 1u << cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			die("drop from the bounding set");
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { bits, bits, 0 }, { 0, 0, 0 } };
	if (syscall(SYS_capset, &header, data) < 0)
		die("capset");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		die("no_new_privs");
	struct sock_fprog program = { COUNT(filter), (struct sock_filter *)filter };
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		die("seccomp");
}

static void child(const char *rootfs, char **command, int ready)
{
	char byte;
	if (read(ready, &byte, 1) != 1)
		_exit(125);
	/* The parent filled its own copy; a hierarchy is there when its directory is. */
	for (size_t i = 0; i < COUNT(hierarchies); i++) {
		char path[64];
		snprintf(path, sizeof path, CGROUPS "/%s", hierarchies[i]);
		present[i] = access(path, F_OK) == 0;
	}
	if (unshare(CLONE_NEWCGROUP) < 0)
		die("unshare the cgroup namespace");
	if (setsid() < 0)
		die("setsid");
	make_root(rootfs);
	loopback_up();
	if (sethostname("bench", 5) < 0)
		die("sethostname");
	hide_paths();
	struct rlimit files = { 1024, 1024 };
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		die("setrlimit");
	if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		die("close_range");
	drop_rights();
	char *environment[] = { "PATH=/bin", "HOME=/root", NULL };
	execve(command[0], command, environment);
	die(command[0]);
}

/* -- exec -- */

/* Opens what lies below the cgroup that init is in, for each line of its /proc/PID/cgroup. */
static size_t open_groups(const char *pid, int *tasks, size_t most, int *v2)
{
	char path[1024], text[4096];
	snprintf(path, sizeof path, "/proc/%s/cgroup", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n < 0)
		die(path);
	close(fd);
	text[n] = 0;
	size_t count = 0;
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char *name = strchr(line, ':') + 1;
		char *group = strchr(name, ':');
		*group++ = 0;
		if (!*name) {
			snprintf(path, sizeof path, CGROUPS "/unified%s", group);
			*v2 = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
			continue;
		}
		name = strncmp(name, "name=", 5) ? name : name + 5;
		snprintf(path, sizeof path, CGROUPS "/%s%s/tasks", name, group);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && count < most)
			tasks[count++] = fd;
	}
	return count;
}

static int run_inside(const char *pid, char **command)
{
	int tasks[16], v2 = -1;
	size_t count = open_groups(pid, tasks, COUNT(tasks), &v2);
	int init = syscall(SYS_pidfd_open, atoi(pid), 0);
	if (init < 0 || setns(init, CLONE_NEWPID) < 0)
		die("join the pid namespace");
	struct clone_args args = {
		.flags = v2 < 0 ? 0 : CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = v2 < 0 ? 0 : v2,
	};
	pid_t child = syscall(SYS_clone3, &args, sizeof args);
	if (child < 0)
		die("clone3");
	if (child == 0) {
		for (size_t i = 0; i < count; i++)
			if (write(tasks[i], "0", 1) != 1)
				die("enter a cgroup");
		if (setns(init, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET |
				       CLONE_NEWCGROUP) < 0)
			die("join the namespaces");
		if (setsid() < 0)
			die("setsid");
		if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
			die("close_range");
		drop_rights();
		char *environment[] = { "PATH=/bin", "HOME=/root", NULL };
		execve(command[0], command, environment);
		die(command[0]);
	}
	int status;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		dprintf(2, "usage: floor ROOTFS NAME PROGRAM [ARGS...]\n"
			   "       floor -e PID PROGRAM [ARGS...]\n");
		return 125;
	}
	if (!strcmp(argv[1], "-e"))
		return run_inside(argv[2], argv + 3);
	int ready[2];
	if (pipe2(ready, O_CLOEXEC) < 0)
		die("pipe");
	struct clone_args args = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET,
		.exit_signal = SIGCHLD,
	};
	pid_t pid = syscall(SYS_clone3, &args, sizeof args);
	if (pid < 0)
		die("clone3");
	if (pid == 0)
		child(argv[1], argv + 3, ready[0]);
	enter_groups(argv[2], pid);
	if (write(ready[1], "", 1) != 1)
		die("wake the child");
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	remove_groups(argv[2]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
