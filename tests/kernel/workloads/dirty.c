/*
 * Writes to as many random pages as each line says, and answers with the truth: how many distinct pages were
 * written by this line, by the last two, and so on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 65536, AGES = 10 };

/* One byte a page, for what keeps the truth is written to as well. */
static unsigned char last[PAGES];

static unsigned long long state = 23;

static unsigned chance(void)
{
	/* xorshift64 (Marsaglia, 2003) */
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state >> 20;
}

int main(void)
{
	unsigned epoch = 0, count;
	char *memory = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	madvise(memory, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE);
	memset(memory, 1, (size_t)PAGES * PAGE);
	memset(last, 0, sizeof(last));
	printf("ready\n");
	fflush(stdout);
	while (scanf("%u", &count) == 1) {
		epoch++;
		for (unsigned i = 0; i < count; i++) {
			unsigned page = chance() % PAGES;
			memory[(size_t)page * PAGE] += 1;
			last[page] = epoch;
		}
		for (unsigned age = 0; age < AGES; age++) {
			unsigned distinct = 0;
			for (unsigned page = 0; page < PAGES; page++)
				distinct += last[page] && last[page] + age >= epoch;
			printf("%u ", distinct);
		}
		printf("\n");
		fflush(stdout);
	}
	return 0;
}
