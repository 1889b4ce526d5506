#include "dev/block_priv.h"

#include <errno.h>
#include <stdlib.h>

#define LEAF_WORDS   512u
#define LEAF_SECTORS (LEAF_WORDS * 64u) /* 16 MiB of disk in 4 KiB of map */

int block_map_init(struct block_map *m, uint64_t size)
{
    m->leaves = (size / BLOCK_SECTOR + LEAF_SECTORS - 1) / LEAF_SECTORS;
    m->leaf = calloc(m->leaves ? m->leaves : 1, sizeof *m->leaf);
    return m->leaf ? 0 : -ENOMEM;
}

void block_map_fini(struct block_map *m)
{
    for (uint64_t i = 0; m->leaf && i < m->leaves; i++)
        free(m->leaf[i]);
    free(m->leaf);
    m->leaf = NULL;
}

int block_map_reserve(struct block_map *m, uint64_t off, uint64_t len)
{
    if (!len)
        return 0;
    uint64_t last = (off + len - 1) / BLOCK_SECTOR / LEAF_SECTORS;
    for (uint64_t i = off / BLOCK_SECTOR / LEAF_SECTORS; i <= last; i++)
        if (!m->leaf[i] && !(m->leaf[i] = calloc(LEAF_WORDS, sizeof **m->leaf)))
            return -ENOMEM;
    return 0;
}

/* The bits of the word that sector `at` is in, from it on, as far as `end`. */
static uint64_t word_mask(uint64_t at, uint64_t end)
{
    unsigned first = at % 64;
    uint64_t n = min_u64(64 - first, end - at);
    return (n == 64 ? ~UINT64_C(0) : BIT(n) - 1) << first;
}

void block_map_mark(struct block_map *m, uint64_t off, uint64_t len)
{
    uint64_t end = (off + len) / BLOCK_SECTOR;
    for (uint64_t at = off / BLOCK_SECTOR; at < end; at = (at | 63) + 1)
        m->leaf[at / LEAF_SECTORS][at % LEAF_SECTORS / 64] |= word_mask(at, end);
}

static bool is_marked(const struct block_map *m, uint64_t sector)
{
    const uint64_t *leaf = m->leaf[sector / LEAF_SECTORS];
    return leaf && leaf[sector % LEAF_SECTORS / 64] & BIT(sector % 64);
}

/* How many sectors from `at` on in its word, at most to `end`, are as `at` is; a leaf that is not there counts whole.
 */
static uint64_t run_in_word(const struct block_map *m, uint64_t at, uint64_t end, bool marked)
{
    const uint64_t *leaf = m->leaf[at / LEAF_SECTORS];
    if (!leaf)
        return marked ? 0 : min_u64(end, (at / LEAF_SECTORS + 1) * LEAF_SECTORS) - at;
    uint64_t word = leaf[at % LEAF_SECTORS / 64];
    uint64_t other = (marked ? ~word : word) & word_mask(at, end);
    if (other)
        return (uint64_t)__builtin_ctzll(other) - at % 64;
    return min_u64(end - at, 64 - at % 64);
}

uint64_t block_map_run(const struct block_map *m, uint64_t off, uint64_t len, bool *overlay)
{
    uint64_t at = off / BLOCK_SECTOR, end = (off + len + BLOCK_SECTOR - 1) / BLOCK_SECTOR;
    *overlay = is_marked(m, at);
    while (at < end) {
        uint64_t n = run_in_word(m, at, end, *overlay);
        at += n;
        if (!n || (at % 64 && at % LEAF_SECTORS))
            break;
    }
    return min_u64(at * BLOCK_SECTOR - off, len);
}
