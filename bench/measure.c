/*
 * measure: runs one command and tells what it cost.
 *
 *   measure [-u] [-m DIR] RESULT COMMAND [ARGS...]
 *     -u   in a private mount namespace without /sys/fs/cgroup/unified (crun
 *          refuses machines that have both kinds of cgroups)
 *     -m   in a private mount namespace with MOUNTS more mounts below DIR
 *
 * Writes one line to RESULT: wall and CPU time in nanoseconds, peak resident set
 * in KiB, wait status. CPU time is that of the whole tree: the command, everything
 * waited for by it, orphans that ended (we are their subreaper), and what living
 * orphans used so far (a container's init after `create`).
 *
 * A small static program starts the command by vfork: the kernel counts the image
 * before exec in the peak resident set, so it must be smaller than what is measured.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOUNTS 5000

static void die(const char *what)
{
	dprintf(2, "measure: %s: %s\n", what, strerror(errno));
	_exit(125);
}

static long long now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long cpu_ns(const struct rusage *u)
{
	return (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000000LL +
	       (u->ru_utime.tv_usec + u->ru_stime.tv_usec) * 1000LL;
}

/* CPU time so far of one process, from its scheduler statistics. */
static long long running_ns(const char *pid)
{
	char path[64], text[128];
	snprintf(path, sizeof path, "/proc/%s/schedstat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	return strtoll(text, NULL, 10);
}

/* CPU time of our living children: orphans of the command. */
static long long orphans_ns(void)
{
	char path[64], text[4096];
	snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	long long sum = 0;
	if (n > 0) {
		text[n] = 0;
		for (char *pid = strtok(text, " "); pid; pid = strtok(NULL, " "))
			sum += running_ns(pid);
	}
	return sum;
}

static void own_mounts(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		die("unshare");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		die("make / private");
}

static void many_mounts(const char *dir)
{
	char path[512];
	own_mounts();
	if (mount("tmpfs", dir, "tmpfs", 0, NULL) < 0)
		die(dir);
	for (int i = 0; i < MOUNTS; i++) {
		snprintf(path, sizeof path, "%s/%d", dir, i);
		if (mkdir(path, 0755) < 0 || mount(path, path, NULL, MS_BIND, NULL) < 0)
			die(path);
	}
}

static void hide_unified(void)
{
	own_mounts();
	if (umount2("/sys/fs/cgroup/unified", MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT)
		die("unmount /sys/fs/cgroup/unified");
}

int main(int argc, char **argv)
{
	int opt;
	while ((opt = getopt(argc, argv, "+um:")) != -1) {
		if (opt == 'u')
			hide_unified();
		else if (opt == 'm')
			many_mounts(optarg);
		else
			return 125;
	}
	if (argc - optind < 2) {
		dprintf(2, "usage: measure [-u] [-m DIR] RESULT COMMAND [ARGS...]\n");
		return 125;
	}
	int result = open(argv[optind], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (result < 0)
		die(argv[optind]);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		die("/dev/null");
	dup2(null, 0);
	dup2(null, 1);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		die("become a subreaper");
	char **command = argv + optind + 1;
	long long start = now_ns();
	pid_t pid = vfork();
	if (pid == 0) {
		execvp(command[0], command);
		_exit(127);
	}
	if (pid < 0)
		die("vfork");
	int status;
	struct rusage own;
	while (wait4(pid, &status, 0, &own) < 0)
		if (errno != EINTR)
			die("wait4");
	long long wall = now_ns() - start;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	struct rusage all;
	getrusage(RUSAGE_CHILDREN, &all);
	dprintf(result, "%lld %lld %ld %d\n", wall, cpu_ns(&all) + orphans_ns(), all.ru_maxrss, status);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 124;
}
