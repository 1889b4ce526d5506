/* Inside of the runner: its two kinds, behind one table. */
#ifndef HEC_VM_RUNNER_PRIV_H
#define HEC_VM_RUNNER_PRIV_H

#include "vm/runner.h"

/* As the functions of runner.h. */
struct runner_ops {
    void (*attach)(struct runner *r, const struct engine_ops *ops, struct engine_vm *vm, struct fabric *fabric);
    void (*destroy)(struct runner *r);
    int (*prepare)(struct runner *r, struct err *e);
    int (*start)(struct runner *r, struct err *e);
    void (*stop)(struct runner *r);
    void (*kick)(struct runner *r, vcpu_idx_t target);
    void (*wake)(struct runner *r);
    void (*request_stop)(struct runner *r);
    void (*stats)(struct runner *r, struct runner_stats *out);
    void (*trim)(struct runner *r);
    uint64_t (*hash)(const struct runner *r);
};

/* First member of either kind. */
struct runner {
    const struct runner_ops *ops; /* (c) */
};

int runner_pool_create(const struct runner_config *c, struct runner **out, struct err *e);
int runner_threads_create(const struct runner_config *c, struct runner **out, struct err *e);

#endif
