/* Does 23 of one thing for each letter it reads, and nothing else that counts; answers with the letter. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TIMES = 23, PAGE = 4096 };

static char *fresh(void)
{
	char *pages = mmap(NULL, TIMES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED)
		abort();
	madvise(pages, TIMES * PAGE, MADV_NOHUGEPAGE);
	return pages;
}

static void *nothing(void *argument)
{
	return argument;
}

static void wait_for(pid_t child)
{
	if (waitpid(child, NULL, 0) != child)
		abort();
}

/* The client closes first; the server's end is gone when its thread has been joined. */
static void *serve(void *argument)
{
	int listener = *(int *)argument;
	for (int i = 0; i < TIMES; i++) {
		char byte;
		int connection = accept(listener, NULL, NULL);
		while (read(connection, &byte, 1) > 0)
			;
		close(connection);
	}
	return NULL;
}

static void connect_and_close(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (void *)&address, length) || listen(listener, TIMES) ||
	    getsockname(listener, (void *)&address, &length))
		abort();
	pthread_t server;
	pthread_create(&server, NULL, serve, &listener);
	for (int i = 0; i < TIMES; i++) {
		char byte;
		int client = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(client, (void *)&address, length))
			abort();
		shutdown(client, SHUT_WR);
		while (read(client, &byte, 1) > 0)
			;
		close(client);
	}
	pthread_join(server, NULL);
	close(listener);
}

static void act(char what)
{
	char *pages;
	volatile char seen;
	int zero;
	pthread_t thread;
	pid_t child;

	switch (what) {
	case 'w': /* first writes */
		pages = fresh();
		for (int i = 0; i < TIMES; i++)
			pages[i * PAGE] = 1;
		munmap(pages, TIMES * PAGE);
		break;
	case 'r': /* first reads, then writes to what is mapped read-only by then */
		pages = fresh();
		for (int i = 0; i < TIMES; i++)
			seen = pages[i * PAGE];
		for (int i = 0; i < TIMES; i++)
			pages[i * PAGE] = 1;
		(void)seen;
		munmap(pages, TIMES * PAGE);
		break;
	case 'k': /* first writes by the kernel */
		zero = open("/dev/zero", O_RDONLY);
		pages = fresh();
		if (read(zero, pages, TIMES * PAGE) != TIMES * PAGE)
			abort();
		munmap(pages, TIMES * PAGE);
		close(zero);
		break;
	case 't':
		for (int i = 0; i < TIMES; i++) {
			pthread_create(&thread, NULL, nothing, NULL);
			pthread_join(thread, NULL);
		}
		break;
	case 'f':
		for (int i = 0; i < TIMES; i++) {
			child = fork();
			if (!child)
				_exit(0);
			wait_for(child);
		}
		break;
	case 'e':
		for (int i = 0; i < TIMES; i++) {
			child = vfork();
			if (!child) {
				execl("/bin/true", "true", (char *)NULL);
				_exit(1);
			}
			wait_for(child);
		}
		break;
	case 'n':
		connect_and_close();
		break;
	}
}

int main(void)
{
	char what;
	if (write(1, "ready\n", 6) != 6)
		return 1;
	while (read(0, &what, 1) == 1) {
		char answer[2] = {what, '\n'};
		if (what == '\n')
			continue;
		act(what);
		if (write(1, answer, 2) != 2)
			return 1;
	}
	return 0;
}
