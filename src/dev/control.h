/* What a device may ask of the machine as a whole. One struct a machine; vm/ fills it, devices borrow it. */
#ifndef HEC_DEV_CONTROL_H
#define HEC_DEV_CONTROL_H

enum vm_request {
    VM_REQ_POWEROFF, /* the guest switched itself off (ACPI S5, "Shutdown" at 8900h) */
    VM_REQ_RESET,    /* the guest asked for a reset (CF9h, keyboard controller, port 92h) */
    VM_REQ_EXIT,     /* end the process with `code` (isa-debug-exit, Ctrl-A x) */
    VM_REQ_PANIC     /* the guest reported that it cannot go on */
};

/* Any thread, often with a device's lock held: `request` only notes the wish and returns; it never calls back into a
 * device. `code` is the exit status for VM_REQ_EXIT, else 0. */
struct vm_control {
    void (*request)(void *opaque, enum vm_request req, int code);
    void *opaque;
};

static inline void vm_request(const struct vm_control *c, enum vm_request req, int code)
{
    if (c && c->request)
        c->request(c->opaque, req, code);
}

#endif
