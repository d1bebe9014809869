// SPDX-License-Identifier: Apache-2.0

// pause holds a pod's namespaces while its containers come and go. It is in C
// because there is one for every pod: this one needs a few pages of memory and
// starts at once. As PID 1 of a shared process namespace it also reaps orphans.

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
	if (argc > 1 && strcmp(argv[1], "-v") == 0) {
		static const char version[] = "bastide pause 3.10\n";
		return write(STDOUT_FILENO, version, sizeof version - 1) < 0;
	}

	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) != 0)
		return 1;

	for (;;) {
		switch (sigwaitinfo(&signals, NULL)) {
		case SIGCHLD:
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
			break;
		case SIGINT:
		case SIGTERM:
			return 0;
		case -1:
			if (errno != EINTR)
				return 2;
		}
	}
}
