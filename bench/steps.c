/*
 * steps: runs one command step by step and tells which addresses of its program it executed.
 *
 *   steps RESULT COMMAND [ARGS...]
 *
 * Writes each address once, in hexadecimal, a line each; only those of a program that is
 * linked at a fixed address below 4 MiB from FIRST. Children are not followed: what they
 * run before their exec is code of the same program, and small. `cargo xtask hot` uses it.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST 0x200000UL
#define BYTES 0x400000UL

static unsigned char seen[BYTES];

static void die(const char *what)
{
	dprintf(2, "steps: %s: %s\n", what, strerror(errno));
	_exit(125);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		dprintf(2, "usage: steps RESULT COMMAND [ARGS...]\n");
		return 125;
	}
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		execv(argv[2], argv + 2);
		_exit(127);
	}
	int status;
	for (;;) {
		if (waitpid(pid, &status, 0) < 0)
			die("waitpid");
		if (!WIFSTOPPED(status))
			break;
		errno = 0;
		unsigned long at = ptrace(PTRACE_PEEKUSER, pid,
					  offsetof(struct user_regs_struct, rip), 0);
		if (errno == 0 && at - FIRST < BYTES)
			seen[at - FIRST] = 1;
		int signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
		if (ptrace(PTRACE_SINGLESTEP, pid, 0, signal) < 0 && errno != ESRCH)
			die("step");
	}
	FILE *result = fopen(argv[1], "w");
	if (!result)
		die(argv[1]);
	for (unsigned long i = 0; i < BYTES; i++)
		if (seen[i])
			fprintf(result, "%lx\n", FIRST + i);
	if (fclose(result) != 0)
		die(argv[1]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 124;
}
