/* records write FILE NAME: in a guest: for ever, write a record to FILE (a file or a disk), make it stable, and only
 * then say "records: NAME NUMBER" on standard output. A record is 4 KiB at NUMBER % SLOTS. records check FILE NAME: on
 * the host, with the guest's console as standard input: FILE holds every record that was acknowledged, or a later one
 * in its slot. The one in flight at the end may be there, not there, or torn.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 509u /* no power of two, so that slots and blocks of a file system do not go together */
#define WORDS 512u

static void fill(uint64_t *word, uint64_t number)
{
    uint64_t x = number * 0x9e3779b97f4a7c15u + 1;
    word[0] = number;
    for (unsigned i = 1; i < WORDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        word[i] = x;
    }
}

static int write_records(const char *file, const char *name)
{
    uint64_t word[WORDS];
    int fd = open(file, O_RDWR | O_CREAT, 0644);
    for (uint64_t n = 1; fd >= 0; n++) {
        fill(word, n);
        if (pwrite(fd, word, sizeof word, (off_t)(n % SLOTS * sizeof word)) != sizeof word || fdatasync(fd))
            break;
        printf("records: %s %llu\n", name, (unsigned long long)n);
        fflush(stdout);
    }
    perror(file);
    return 1;
}

/* The last record that was acknowledged. A line that the end of the console cut off counts for what is left of it: a
 * smaller number. */
static uint64_t last_acknowledged(const char *name)
{
    char line[256], format[64];
    uint64_t last = 0;
    snprintf(format, sizeof format, "records: %.32s %%llu", name);
    while (fgets(line, sizeof line, stdin)) {
        unsigned long long n = 0;
        const char *at = strstr(line, "records: ");
        if (at && sscanf(at, format, &n) == 1 && n > last)
            last = n;
    }
    return last;
}

/* The number of the whole record in the slot of `n`; 0: none. */
static uint64_t slot_number(int fd, uint64_t n)
{
    uint64_t there[WORDS] = {0}, right[WORDS];
    if (pread(fd, there, sizeof there, (off_t)(n % SLOTS * sizeof there)) != sizeof there)
        return 0;
    fill(right, there[0]);
    return memcmp(there, right, sizeof there) ? 0 : there[0];
}

/* Records past the last line are there, too, since a console is slower than a disk; the slot behind them is the one
 * that may be torn. */
static unsigned check_slots(int fd, uint64_t last)
{
    uint64_t flying = last + 1;
    while (slot_number(fd, flying) == flying)
        flying++;
    unsigned bad = 0;
    for (uint64_t n = last > SLOTS ? last - SLOTS + 1 : 1; n <= last; n++) {
        uint64_t there = slot_number(fd, n);
        if (there == n || there == n + SLOTS || n % SLOTS == flying % SLOTS)
            continue;
        fprintf(stderr, "records: %llu is lost: number %llu is in its slot\n", (unsigned long long)n,
                (unsigned long long)there);
        bad++;
    }
    return bad;
}

static int check(const char *file, const char *name)
{
    uint64_t last = last_acknowledged(name);
    int fd = open(file, O_RDONLY);
    if (fd < 0 || !last) {
        fprintf(stderr, "records: %s: %s\n", file, fd < 0 ? "does not open" : "nothing was acknowledged");
        return 1;
    }
    unsigned bad = check_slots(fd, last);
    printf("records: %s: %llu acknowledged, %u lost\n", name, (unsigned long long)last, bad);
    return bad != 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "write"))
        return write_records(argv[2], argv[3]);
    if (argc == 4 && !strcmp(argv[1], "check"))
        return check(argv[2], argv[3]);
    fprintf(stderr, "usage: records write|check FILE NAME\n");
    return 2;
}
