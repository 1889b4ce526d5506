/* What the interpreter and host code say to each other. */
#include "cpu/jit/jit_priv.h"

static struct block *block_of_first(const struct uop *u)
{
    return (struct block *)((uintptr_t)u - offsetof(struct block, uops));
}

/* ---- flags: RFLAGS for C, what LAHF and SETO make for host code ---- */

static void flags_out(struct soft_vcpu *v)
{
    uint64_t f = flags_get(v);
    v->jit_flags = (uint16_t)((f & 0xff) << 8 | (f >> 11 & 1));
}

static void flags_in(struct soft_vcpu *v)
{
    flags_put(v, (v->jit_flags >> 8) | (uint64_t)(v->jit_flags & 1) << 11);
}

/* ---- from host code ---- */

uint8_t *jit_refill(struct soft_vcpu *v, gva_t gva, unsigned how)
{
    return lin_refill(v, gva, how >> 8, how & 0xff);
}

bool jit_generic(struct soft_vcpu *v, const struct jit_site *s)
{
    FOLLOWED(v->vm->jit);
    v->cur = s->b;
    flags_in(v);
    bool on = uop_execute(v, s->u, &s->in);
    flags_out(v);
    return on;
}

/* ---- back from host code ---- */

static struct jit_link *writable(const struct soft_vcpu *v, const struct jit_link *l)
{
    const struct jit *j = v->vm->jit;
    return (struct jit_link *)((uintptr_t)l - (uintptr_t)j->rx + (uintptr_t)j->rw);
}

static struct block *target_of(const struct jit_link *l)
{
    return atomic_load_explicit((_Atomic(struct block *) *)&l->u->link, memory_order_acquire);
}

static void *code_of(const struct block *b)
{
    return __atomic_load_n(&b->code, __ATOMIC_ACQUIRE);
}

/* Take the way as the interpreter does, and let the next one go straight if the other block is translated. */
static const struct uop *back_link(struct soft_vcpu *v, const struct jit_link *l)
{
    const struct block *to = target_of(l);
    v->cur = l->b;
    if (block_alive(to) && __atomic_load_n(&to->body, __ATOMIC_ACQUIRE)) {
        LINKED(v->vm->jit);
        __atomic_store_n(&writable(v, l)->code, code_of(to), __ATOMIC_RELEASE);
    }
    return op_end(v, l->u);
}

static const struct uop *back_link_refused(struct soft_vcpu *v, const struct jit_link *l)
{
    v->cur = l->b;
    if (!block_alive(target_of(l)))
        __atomic_store_n(&writable(v, l)->code, v->vm->jit->unlinked, __ATOMIC_RELEASE);
    return uop_link_slow(v, l->u);
}

static const struct uop *back_refused(struct soft_vcpu *v, const struct block *b)
{
    return uop_goto(v, v->rip_bias + (b->key & 0xfff));
}

static const struct uop *back_block(struct soft_vcpu *v, struct block *b)
{
    int64_t left = v->budget - atomic_load_explicit(&b->gate, memory_order_relaxed);
    if (left < 0 || atomic_load_explicit(&v->attn, memory_order_relaxed))
        return back_refused(v, b);
    v->budget = left;
    v->cur = b;
    return b->uops;
}

static const struct uop *back(struct soft_vcpu *v, uintptr_t how)
{
    void *p = (void *)(how & ~(uintptr_t)BACK_MASK);
    switch (how & BACK_MASK) {
    case BACK_FIRST:
        return block_of_first(p)->first(v, p);
    case BACK_LINK:
        return back_link(v, p);
    case BACK_LINK_REFUSED:
        return back_link_refused(v, p);
    case BACK_BLOCK:
        return back_block(v, p);
    case BACK_REFUSED:
        return back_refused(v, p);
    default:
        return p;
    }
}

/* ---- the first uops ---- */

HANDLER(op_jit)
{
    flags_out(v);
    uintptr_t how = v->vm->jit->enter(v, block_of_first(u)->body);
    FOLLOWED(v->vm->jit);
    flags_in(v);
    return back(v, how);
}

/* Executions are counted without care for other vCPUs': heat is a guess. */
HANDLER(op_heat)
{
    struct block *b = block_of_first(u);
    struct jit *j = v->vm->jit;
    uint32_t heat = atomic_load_explicit(&b->heat, memory_order_relaxed) + 1;
    atomic_store_explicit(&b->heat, heat, memory_order_relaxed);
    if (heat != j->heat)
        return b->first(v, u);
    pthread_mutex_lock(&j->lock);
    if (!__atomic_load_n(&b->body, __ATOMIC_RELAXED))
        jit_translate(j, b, v_ram(v));
    pthread_mutex_unlock(&j->lock);
    return b->body ? op_jit(v, u) : b->first(v, u);
}

void jit_watch(struct jit *j, struct block *b)
{
    unsigned mode = b->key >> 52;
    b->code = j->untranslated;
    b->body = NULL;
    b->first = b->uops[0].fn;
    atomic_init(&b->heat, 0);
    if ((mode & MODE_CODE) == CODE64 && !(mode & MODE_SINGLE))
        b->uops[0].fn = op_heat;
}
