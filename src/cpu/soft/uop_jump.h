/* Entering the next block from a handler, and conditions. For the uop_*.c that end blocks. */
#ifndef HEC_CPU_SOFT_UOP_JUMP_H
#define HEC_CPU_SOFT_UOP_JUMP_H

#include "cpu/soft/block.h"

/* Enter the block `j` is linked to. Its gate also says no when it is dead or was never known. */
#define GO_LINK(j)                                                                                                     \
    do {                                                                                                               \
        struct block *b_ = atomic_load_explicit(&(j)->link, memory_order_acquire);                                     \
        int64_t left_ = v->budget - atomic_load_explicit(&b_->gate, memory_order_relaxed);                             \
        if (unlikely(left_ < 0) || unlikely(atomic_load_explicit(&v->attn, memory_order_relaxed)))                     \
            return uop_link_slow(v, j);                                                                                \
        v->budget = left_;                                                                                             \
        v->cur = b_;                                                                                                   \
        TAIL(b_->uops);                                                                                                \
    } while (0)

/* Go to a linear address (64-bit or flat code) by the jump cache. Everything of this instruction has been done. */
#define GO_RIP(to)                                                                                                     \
    do {                                                                                                               \
        uint64_t rip_ = (to);                                                                                          \
        const struct jump_entry *e_ = &v->jump[jump_slot(rip_)];                                                       \
        if (unlikely(e_->rip != rip_))                                                                                 \
            return uop_goto(v, rip_);                                                                                  \
        struct block *b_ = e_->b;                                                                                      \
        int64_t left_ = v->budget - atomic_load_explicit(&b_->gate, memory_order_relaxed);                             \
        if (unlikely(left_ < 0) || unlikely(atomic_load_explicit(&v->attn, memory_order_relaxed)))                     \
            return uop_goto(v, rip_);                                                                                  \
        v->rip_bias = rip_ & ~UINT64_C(0xfff);                                                                         \
        v->budget = left_;                                                                                             \
        v->cur = b_;                                                                                                   \
        TAIL(b_->uops);                                                                                                \
    } while (0)

/* A condition after CMP or SUB, both sides shifted up. `cc` is a constant. */
ALWAYS_INLINE bool cond_sub(unsigned cc, uint64_t a, uint64_t b)
{
    bool yes;
    switch (cc >> 1) {
    case 1:
        yes = a < b;
        break;
    case 2:
        yes = a == b;
        break;
    case 3:
        yes = a <= b;
        break;
    case 4:
        yes = (int64_t)(a - b) < 0;
        break;
    case 6:
        yes = (int64_t)a < (int64_t)b;
        break;
    default:
        yes = (int64_t)a <= (int64_t)b;
    }
    return yes != (cc & 1);
}

/* A condition after AND, TEST, OR, XOR with result r (shifted up); not P or NP. */
ALWAYS_INLINE bool cond_logic(unsigned cc, uint64_t r)
{
    bool yes;
    switch (cc >> 1) {
    case 0:
    case 1:
        yes = false;
        break;
    case 2:
    case 3:
        yes = r == 0;
        break;
    case 4:
    case 6:
        yes = (int64_t)r < 0;
        break;
    default:
        yes = (int64_t)r <= 0;
    }
    return yes != (cc & 1);
}

enum cond_known { COND_NO, COND_YES, COND_ASK };

/* The condition from the lazy state, without a call: COND_ASK where that takes flags_cond(). `cc` is a constant. */
ALWAYS_INLINE enum cond_known cond_quick(const struct soft_vcpu *v, unsigned cc)
{
    uint8_t kind = (uint8_t)v->cc_op;
    uint64_t r = v->cc_dst;
    switch (cc >> 1) {
    case 0:
    case 5:
        return COND_ASK;
    case 1:
        if (kind == CC_SUB)
            return (r + v->cc_src < v->cc_src) != (cc & 1);
        if (kind == CC_EXPL || kind == CC_SHR)
            return (v->cc_src & 1) != (cc & 1);
        return kind == CC_ADD ? (enum cond_known)((r < v->cc_src) != (cc & 1)) : COND_ASK;
    case 2:
    case 4:
        return kind == CC_RFLAGS ? COND_ASK : (enum cond_known)cond_logic(cc, r);
    default:
        if (kind == CC_SUB)
            return cond_sub(cc, r + v->cc_src, v->cc_src);
        return kind == CC_LOGIC ? (enum cond_known)cond_logic(cc, r) : COND_ASK;
    }
}

#endif
