#include "dev/e1000e_priv.h"

#include "pci/msi.h"

#include <errno.h>
#include <stdlib.h>

#define VENDOR_ID   0x8086
#define DEVICE_ID   0x10d3
#define CLASS_ETHER 0x020000
#define MSIX_BAR    3u
#define MSIX_PBA    0x2000u
#define IO_SIZE     32u

/* ---- state ---- */

void e1k_enter(struct e1000e *n)
{
    if (!n->depth++)
        pthread_mutex_lock(&n->work);
}

void e1k_leave(struct e1000e *n)
{
    if (!--n->depth)
        pthread_mutex_unlock(&n->work);
}

/* Interrupts last, under their lock: whatever a vCPU raised meanwhile goes with the level it made. Timers stay armed,
 * for only the loop can stop them: they find nothing to do, or what came after. */
void e1k_reset_now(struct e1000e *n)
{
    uint32_t wanted = atomic_load(&n->resets_wanted);
    trace(n->trace, TRACE_DEV, "e1000e: reset");
    e1k_regs_reset(n);
    e1k_irq_reset(n);
    memset(n->tx, 0, sizeof n->tx);
    atomic_store(&n->starved, false);
    atomic_store(&n->mastering, true);
    atomic_store(&n->resets_done, wanted);
}

static bool may_master(struct e1000e *n)
{
    return !(e1k_get(n, R_CTRL) & CTRL_MASTER_OFF);
}

/* With `work` held nothing is under way, so it is true at once. */
static void settle(struct e1000e *n)
{
    if (e1k_resetting(n))
        e1k_reset_now(n);
    atomic_store(&n->mastering, may_master(n));
}

/* Drivers wait 10 ms for the one and 8 for the other, then go on regardless, and their first writes would be lost: on a
 * busy host the loop may not run in that time, though the vCPU does. */
void e1k_look(struct e1000e *n)
{
    if (!e1k_resetting(n) && atomic_load(&n->mastering) == may_master(n))
        return;
    if (pthread_mutex_trylock(&n->work))
        return;
    settle(n);
    pthread_mutex_unlock(&n->work);
}

/* CTRL or the command register was written: a reset, or mastering off or on again. What waited for it goes on, also if
 * a vCPU has seen to it already. */
static void change_state(void *opaque)
{
    struct e1000e *n = opaque;
    e1k_enter(n);
    settle(n);
    net_resume(n->net);
    e1k_transmit(n);
    e1k_leave(n);
}

/* ---- the PCI function ---- */

/* Function level reset: the loop does it; until then the card touches no memory. */
static void function_reset(struct pci_func *f)
{
    struct e1000e *n = f->dev;
    atomic_fetch_add(&n->resets_wanted, 1);
    ioloop_ring(n->loop, &n->state_bell);
}

static void config_written(struct pci_func *f, unsigned off, unsigned size)
{
    struct e1000e *n = f->dev;
    if (off <= PCI_COMMAND && PCI_COMMAND < off + size)
        ioloop_ring(n->loop, &n->state_bell);
}

static const struct pci_func_ops func_ops = {.reset = function_reset, .config_written = config_written};

static int setup_function(struct e1000e *n, const struct e1000e_config *c, struct err *e)
{
    struct pci_func *f = &n->func;
    pci_func_setup(f, c->devfn, VENDOR_ID, DEVICE_ID, CLASS_ETHER, 0);
    pci_func_subsystem(f, VENDOR_ID, 0);
    f->ops = &func_ops;
    f->dev = n;
    f->name = "e1000e";
    pci_func_intx(f, 1);
    pci_func_bar(
        f, 0,
        &(struct pci_bar){.kind = PCI_BAR_MEM32, .size = E1K_MMIO, .ops = &e1k_mmio_ops, .dev = n, .name = "e1000e"});
    pci_func_bar(
        f, 2,
        &(struct pci_bar){.kind = PCI_BAR_IO, .size = IO_SIZE, .ops = &e1k_io_ops, .dev = n, .name = "e1000e ports"});
    int rc = pci_func_add_msi(f, 1, e);
    if (rc)
        return rc;
    pci_func_add_express(f, PCI_EXP_ENDPOINT);
    return pci_func_add_msix(f, E1K_VECTORS, MSIX_BAR, 0, MSIX_PBA, e);
}

/* ---- lifecycle ---- */

static void plug(void *opaque)
{
    struct e1000e *n = opaque;
    struct net_peer p = {.receive = e1k_receive, .opaque = n};
    e1k_enter(n);
    e1k_reset_now(n);
    net_set_peer(n->net, &p);
    e1k_leave(n);
}

static void unplug(void *opaque)
{
    struct e1000e *n = opaque;
    net_set_peer(n->net, NULL);
    ioloop_timer_cancel(n->loop, &n->throttle);
    ioloop_timer_cancel(n->loop, &n->patience);
    ioloop_bell_remove(n->loop, &n->tx_bell);
    ioloop_bell_remove(n->loop, &n->rx_bell);
    ioloop_bell_remove(n->loop, &n->state_bell);
    ioloop_bell_remove(n->loop, &n->finish);
}

static void free_card(struct e1000e *n)
{
    pci_func_fini(&n->func);
    pthread_mutex_destroy(&n->lock);
    pthread_mutex_destroy(&n->work);
    free(n);
}

int e1000e_create(const struct e1000e_config *c, struct e1000e **out, struct err *e)
{
    struct e1000e *n = calloc(1, sizeof *n);
    if (!n)
        return err_set(e, -ENOMEM, "e1000e: no memory");
    n->net = c->net;
    n->loop = net_loop(c->net);
    n->trace = c->host->cfg.trace;
    memcpy(n->mac, c->mac, sizeof n->mac);
    pthread_mutex_init(&n->lock, NULL);
    pthread_mutex_init(&n->work, NULL);
    ioloop_bell_init(&n->tx_bell, e1k_transmit, n);
    ioloop_bell_init(&n->rx_bell, e1k_refill, n);
    ioloop_bell_init(&n->state_bell, change_state, n);
    ioloop_bell_init(&n->finish, e1k_finish, n);
    ioloop_timer_init(&n->throttle, e1k_throttle_ends, n);
    ioloop_timer_init(&n->patience, e1k_patience_ends, n);
    e1k_nvm_init(n);
    int rc = setup_function(n, c, e);
    if (!rc)
        rc = pci_host_add(c->host, c->bus, &n->func, e);
    if (rc) {
        free_card(n);
        return rc;
    }
    ioloop_call(n->loop, plug, n);
    *out = n;
    return 0;
}

static void power_on(void *opaque)
{
    struct e1000e *n = opaque;
    e1k_enter(n);
    e1k_reset_now(n);
    net_resume(n->net);
    e1k_leave(n);
}

void e1000e_reset(struct e1000e *n)
{
    ioloop_call(n->loop, power_on, n);
}

void e1000e_destroy(struct e1000e *n)
{
    if (!n)
        return;
    ioloop_call(n->loop, unplug, n);
    free_card(n);
}
