/*
 * Builds filters with libseccomp on behalf of libseccomp.rs.
 *
 * Reads commands from standard input, one a line, and answers those marked with
 * a star with one line on standard output:
 *
 *   number ARCH NAME               * the number of NAME, as libseccomp resolves it
 *   new DEFAULT OPTIMIZE             start a filter with this default action
 *   only ARCH                        serve ARCH instead of the native one
 *   arch ARCH                        also serve ARCH
 *   rule ACTION NAME N (I OP A B)*   add a rule; unknown names are skipped
 *   end                            * "ok HEX" or "error ERRNO" of the first failure
 *
 * Numbers are decimal. A failure that leaves nothing to answer with ends the program,
 * and so does a filter that takes longer than some seconds: some rules make
 * libseccomp 2.5 loop forever.
 */
#include <errno.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static scmp_filter_ctx filter;
static int failure;

static void note(int result)
{
	if (result < 0 && result != -EEXIST && failure == 0)
		failure = -result;
}

static unsigned long long next_number(void)
{
	const char *word = strtok(NULL, " \n");

	return word ? strtoull(word, NULL, 10) : 0;
}

static void add_rule(void)
{
	struct scmp_arg_cmp conditions[6];
	uint32_t action = next_number();
	const char *name = strtok(NULL, " \n");
	unsigned int count = next_number();
	int number = seccomp_syscall_resolve_name(name);
	int result;

	for (unsigned int i = 0; i < count && i < 6; i++) {
		conditions[i].arg = next_number();
		conditions[i].op = next_number();
		conditions[i].datum_a = next_number();
		conditions[i].datum_b = next_number();
	}
	if (number == __NR_SCMP_ERROR)
		return;
	result = seccomp_rule_add_array(filter, action, number, count, conditions);
	if (result < 0 && failure == 0)
		failure = -result;
}

static void finish(void)
{
	unsigned char bytes[65536];
	size_t length = 0, got;
	FILE *file = tmpfile();

	if (!file)
		exit(1);
	if (failure == 0)
		note(seccomp_export_bpf(filter, fileno(file)));
	seccomp_release(filter);
	filter = NULL;
	if (failure != 0) {
		printf("error %d\n", failure);
	} else {
		rewind(file);
		printf("ok ");
		while ((got = fread(bytes, 1, sizeof(bytes), file)) > 0)
			for (length = 0; length < got; length++)
				printf("%02x", bytes[length]);
		printf("\n");
	}
	fclose(file);
	fflush(stdout);
}

int main(void)
{
	static char line[1 << 16];

	while (fgets(line, sizeof(line), stdin)) {
		const char *command = strtok(line, " \n");

		if (!command)
			continue;
		if (!strcmp(command, "number")) {
			uint32_t arch = next_number();
			const char *name = strtok(NULL, " \n");

			printf("%d\n", seccomp_syscall_resolve_name_arch(arch, name));
			fflush(stdout);
		} else if (!strcmp(command, "new")) {
			failure = 0;
			alarm(3);
			filter = seccomp_init(next_number());
			if (!filter)
				return 1;
			seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, next_number());
		} else if (!strcmp(command, "only")) {
			note(seccomp_arch_remove(filter, SCMP_ARCH_NATIVE));
			note(seccomp_arch_add(filter, next_number()));
		} else if (!strcmp(command, "arch")) {
			note(seccomp_arch_add(filter, next_number()));
		} else if (!strcmp(command, "rule")) {
			add_rule();
		} else if (!strcmp(command, "end")) {
			finish();
			alarm(0);
		} else {
			return 1;
		}
	}
	return 0;
}
