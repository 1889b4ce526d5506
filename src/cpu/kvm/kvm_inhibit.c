/* APICv inhibits from tracefs: a trace instance of our own that records kvm_apicv_inhibit_changed for this process.
 *
 * KVM has no call that tells them. An instance costs the host a ring buffer a CPU, so there is one only with -d irq,
 * and only where tracefs is this user's to write to (root's, that is). The numbers are enum inhibit_reason's.
 */
#include "cpu/kvm/kvm_priv.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENT "events/kvm/kvm_apicv_inhibit_changed/enable"

static bool write_file(const char *dir, const char *name, const char *text)
{
    char path[192];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

/* Only what this process does, its threads to come included. */
static bool set_up(const char *dir)
{
    char tid[16];
    snprintf(tid, sizeof tid, "%d", gettid());
    return write_file(dir, "buffer_size_kb", "8") && write_file(dir, "options/event-fork", "1") &&
           write_file(dir, "set_event_pid", tid) && write_file(dir, EVENT, "1");
}

void kvm_inhibit_open(struct kvm_vm *vm)
{
    char path[192];
    if (!trace_wants(vm->cfg.trace, TRACE_IRQ) || access("/sys/kernel/tracing/" EVENT, W_OK))
        return;
    snprintf(vm->inhibit_dir, sizeof vm->inhibit_dir, "/sys/kernel/tracing/instances/hecaton-%d-%d", getpid(), vm->dev);
    if (mkdir(vm->inhibit_dir, 0700)) {
        vm->inhibit_dir[0] = 0;
        return;
    }
    snprintf(path, sizeof path, "%s/trace_pipe", vm->inhibit_dir);
    if (set_up(vm->inhibit_dir))
        vm->inhibit_trace = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

void kvm_inhibit_close(struct kvm_vm *vm)
{
    if (vm->inhibit_trace >= 0)
        close(vm->inhibit_trace);
    if (vm->inhibit_dir[0])
        rmdir(vm->inhibit_dir);
}

void kvm_inhibit_parse(struct kvm_vm *vm, const char *text)
{
    static const char key[] = "inhibits=";
    for (const char *at = text; (at = strstr(at, key));) {
        at += sizeof key - 1;
        atomic_store(&vm->inhibits, (uint32_t)strtoul(at, NULL, 0));
    }
}

/* Under the statistics' lock. What was cut at the buffer's end is in the next read, whole lines at a time. */
bool kvm_inhibit_read(struct kvm_vm *vm, uint32_t *out)
{
    char text[4096];
    ssize_t n;
    if (vm->inhibit_trace < 0)
        return false;
    while ((n = read(vm->inhibit_trace, text, sizeof text - 1)) > 0) {
        text[n] = 0;
        kvm_inhibit_parse(vm, text);
    }
    *out = atomic_load(&vm->inhibits);
    return true;
}
