#include "vm/runner_priv.h"

int runner_create(const struct runner_config *c, struct runner **out, struct err *e)
{
    return c->own_threads ? runner_threads_create(c, out, e) : runner_pool_create(c, out, e);
}

void runner_attach(struct runner *r, const struct engine_ops *ops, struct engine_vm *vm, struct fabric *fabric)
{
    r->ops->attach(r, ops, vm, fabric);
}

void runner_destroy(struct runner *r)
{
    r->ops->destroy(r);
}

int runner_prepare(struct runner *r, struct err *e)
{
    return r->ops->prepare(r, e);
}

int runner_start(struct runner *r, struct err *e)
{
    return r->ops->start(r, e);
}

void runner_stop(struct runner *r)
{
    r->ops->stop(r);
}

void runner_kick(void *runner, vcpu_idx_t target)
{
    struct runner *r = runner;
    r->ops->kick(r, target);
}

void runner_wake(void *runner)
{
    struct runner *r = runner;
    r->ops->wake(r);
}

void runner_request_stop(struct runner *r)
{
    r->ops->request_stop(r);
}

void runner_stats(struct runner *r, struct runner_stats *out)
{
    r->ops->stats(r, out);
}

void runner_trim(struct runner *r)
{
    r->ops->trim(r);
}

uint64_t runner_hash(const struct runner *r)
{
    return r->ops->hash(r);
}
