/* Values as expressions, for those who prove something about code (jit_walk.h). Equal expressions are one object, so
 * equality is a pointer's. Sums are kept as sums of multiples, whichever way they were added up. */
#ifndef HEC_TESTS_JIT_EXPR_H
#define HEC_TESTS_JIT_EXPR_H

#include "base/bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum expr_kind {
    E_SYMBOL, /* k: its number; nothing is known but `max` */
    E_SUM,    /* term[0..terms) and k: a constant has no terms */
    E_LOAD,   /* k: size in bytes; a: address; epoch */
    E_LOW32,  /* of a */
    E_AND,    /* a and mask k */
    E_SHR,    /* a by k */
    E_XOR     /* a and b */
};
enum { TERMS = 3 };

struct expr {
    uint32_t kind, terms, epoch;
    uint64_t k;
    const struct expr *a, *b;
    struct term {
        const struct expr *e;
        uint64_t times;
    } term[TERMS];
    uint64_t max; /* not part of what it is */
    struct expr *same_hash;
};

enum { EXPR_HASH = 1 << 12, EXPR_ROOM = 48 << 20 };

/* All that lives as long as one proof. */
struct exprs {
    struct expr *hash[EXPR_HASH];
    uint8_t *room;
    size_t used;
    uint32_t symbols;
};

static inline void exprs_init(struct exprs *x)
{
    memset(x, 0, sizeof *x);
    x->room = malloc(EXPR_ROOM);
    assert_non_null(x->room);
}

static inline void exprs_fini(struct exprs *x)
{
    free(x->room);
}

static inline void exprs_forget(struct exprs *x)
{
    memset(x->hash, 0, sizeof x->hash);
    x->used = 0;
    x->symbols = 0;
}

static inline void *exprs_take(struct exprs *x, size_t size)
{
    void *p = x->room + x->used;
    x->used += align_up(size, 16);
    assert_true(x->used <= EXPR_ROOM);
    return memset(p, 0, size);
}

static inline uint64_t expr_hash(const struct expr *e)
{
    uint64_t h = e->kind ^ (uint64_t)e->epoch << 32;
    const uint64_t part[] = {
        e->k, (uintptr_t)e->a, (uintptr_t)e->b, (uintptr_t)e->term[0].e, e->term[0].times, (uintptr_t)e->term[1].e};
    for (unsigned i = 0; i < ARRAY_SIZE(part); i++)
        h = (h ^ part[i]) * UINT64_C(0x9e3779b97f4a7c15) ^ h >> 29;
    return h >> 40;
}

static inline bool expr_same(const struct expr *x, const struct expr *y)
{
    return !memcmp(x, y, offsetof(struct expr, max));
}

/* The one like `e`. */
static inline const struct expr *expr_one(struct exprs *x, const struct expr *e)
{
    struct expr **head = &x->hash[expr_hash(e) % EXPR_HASH], *p;
    for (p = *head; p; p = p->same_hash)
        if (expr_same(p, e))
            return p;
    p = exprs_take(x, sizeof *p);
    *p = *e;
    p->same_hash = *head;
    return *head = p;
}

static inline void expr_begin(struct expr *e, enum expr_kind kind)
{
    memset(e, 0, sizeof *e);
    e->kind = kind;
}

/* ---- symbols, constants, loads ---- */

static inline const struct expr *e_symbol(struct exprs *x, uint64_t max)
{
    struct expr e;
    expr_begin(&e, E_SYMBOL);
    e.k = ++x->symbols;
    e.max = max;
    return expr_one(x, &e);
}

static inline const struct expr *e_const(struct exprs *x, uint64_t k)
{
    struct expr e;
    expr_begin(&e, E_SUM);
    e.k = e.max = k;
    return expr_one(x, &e);
}

static inline const struct expr *e_pointer(struct exprs *x, const void *p)
{
    return e_const(x, (uintptr_t)p);
}

static inline bool is_const(const struct expr *e)
{
    return e->kind == E_SUM && !e->terms;
}

static inline uint64_t size_max(unsigned size)
{
    return size >= 8 ? ~UINT64_C(0) : (UINT64_C(1) << 8 * size) - 1;
}

/* What is at `addr` as long as the epoch lasts. */
static inline const struct expr *e_load(struct exprs *x, const struct expr *addr, unsigned size, uint32_t epoch)
{
    struct expr e;
    expr_begin(&e, E_LOAD);
    e.k = size;
    e.a = addr;
    e.epoch = epoch;
    e.max = size_max(size);
    return expr_one(x, &e);
}

/* ---- sums ---- */

static inline uint64_t sum_max(const struct expr *e)
{
    uint64_t max = e->k, part;
    for (unsigned i = 0; i < e->terms; i++)
        if (__builtin_mul_overflow(e->term[i].e->max, e->term[i].times, &part) ||
            __builtin_add_overflow(max, part, &max))
            return ~UINT64_C(0);
    return max;
}

/* Add a multiple of an atom, in the order of addresses. False: too many. */
static inline bool sum_term(struct expr *e, const struct expr *atom, uint64_t times)
{
    unsigned i = 0;
    while (i < e->terms && e->term[i].e < atom)
        i++;
    if (i < e->terms && e->term[i].e == atom) {
        e->term[i].times += times;
        if (!e->term[i].times) {
            memmove(&e->term[i], &e->term[i + 1], (e->terms - i - 1) * sizeof e->term[0]);
            e->term[--e->terms] = (struct term){.e = NULL};
        }
        return true;
    }
    if (e->terms == TERMS)
        return false;
    memmove(&e->term[i + 1], &e->term[i], (e->terms - i) * sizeof e->term[0]);
    e->term[i] = (struct term){atom, times};
    e->terms++;
    return true;
}

static inline bool sum_add(struct expr *to, const struct expr *from, uint64_t times)
{
    if (from->kind != E_SUM)
        return sum_term(to, from, times);
    to->k += from->k * times;
    for (unsigned i = 0; i < from->terms; i++)
        if (!sum_term(to, from->term[i].e, from->term[i].times * times))
            return false;
    return true;
}

/* a + b * times */
static inline const struct expr *e_add(struct exprs *x, const struct expr *a, const struct expr *b, uint64_t times)
{
    struct expr e;
    expr_begin(&e, E_SUM);
    if (!sum_add(&e, a, 1) || !sum_add(&e, b, times))
        return e_symbol(x, ~UINT64_C(0));
    if (e.terms == 1 && e.term[0].times == 1 && !e.k)
        return e.term[0].e;
    e.max = sum_max(&e);
    return expr_one(x, &e);
}

static inline const struct expr *e_plus(struct exprs *x, const struct expr *a, uint64_t k)
{
    return e_add(x, a, e_const(x, k), 1);
}

static inline const struct expr *e_times(struct exprs *x, const struct expr *a, uint64_t times)
{
    return e_add(x, e_const(x, 0), a, times);
}

/* ---- bits ---- */

static inline const struct expr *e_low32(struct exprs *x, const struct expr *a)
{
    struct expr e;
    if (a->max <= UINT32_MAX)
        return a;
    if (is_const(a))
        return e_const(x, (uint32_t)a->k);
    expr_begin(&e, E_LOW32);
    e.a = a;
    e.max = UINT32_MAX;
    return expr_one(x, &e);
}

static inline const struct expr *e_and(struct exprs *x, const struct expr *a, uint64_t mask)
{
    struct expr e;
    if (is_const(a))
        return e_const(x, a->k & mask);
    if (a->kind == E_AND)
        return e_and(x, a->a, mask & a->k);
    if (a->kind == E_LOW32)
        return mask < UINT32_MAX ? e_and(x, a->a, mask) : mask == UINT32_MAX ? a : e_and(x, a->a, (uint32_t)mask);
    expr_begin(&e, E_AND);
    e.a = a;
    e.k = mask;
    e.max = a->max < mask ? a->max : mask;
    return expr_one(x, &e);
}

static inline const struct expr *e_shr(struct exprs *x, const struct expr *a, unsigned by)
{
    struct expr e;
    if (is_const(a))
        return e_const(x, a->k >> by);
    expr_begin(&e, E_SHR);
    e.a = a;
    e.k = by;
    e.max = a->max >> by;
    return expr_one(x, &e);
}

static inline const struct expr *e_xor(struct exprs *x, const struct expr *a, const struct expr *b)
{
    struct expr e;
    if (a == b)
        return e_const(x, 0);
    if (is_const(a) && is_const(b))
        return e_const(x, a->k ^ b->k);
    expr_begin(&e, E_XOR);
    e.a = a < b ? a : b;
    e.b = a < b ? b : a;
    e.max = ~UINT64_C(0) >> (a->max | b->max ? __builtin_clzll(a->max | b->max) : 63);
    return expr_one(x, &e);
}

/* ---- taking apart ---- */

/* Whether e = base + k. */
static inline bool is_plus(const struct expr *e, const struct expr *base, uint64_t *k)
{
    *k = e == base ? 0 : e->k;
    return e == base || (e->kind == E_SUM && e->terms == 1 && e->term[0].e == base && e->term[0].times == 1);
}

/* If e = *a + *b + k, once each. */
static inline bool is_pair(const struct expr *e, const struct expr **a, const struct expr **b)
{
    if (e->kind != E_SUM || e->terms != 2 || e->term[0].times != 1 || e->term[1].times != 1)
        return false;
    *a = e->term[0].e;
    *b = e->term[1].e;
    return true;
}

#endif
