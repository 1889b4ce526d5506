/* Any configuration accesses, BAR accesses, interrupts and DMA: BARs are where configuration space says and nowhere
 * twice, wires are counted right, requester ids are the guest's, and a reset leaves nothing behind. */
#include "pci_box.h"

#include "dev/irqtest_pci.h"
#include "pci/dma.h"
#include "pci/port.h"

#define RAM_SIZE 0x10000u
#define PLACES   4

struct box {
    struct pci_box pci;
    int slot;
    struct pci_port port[2];
    struct irqtest_pci *t[PLACES];
    uint32_t level;
};

static int deliver(void *opaque, struct irq irq)
{
    ensure(irq.mode <= IRQ_EXTINT && irq.shorthand == IRQ_DEST);
    return 1;
}

static void line(void *opaque, unsigned gsi, bool level)
{
    struct box *b = opaque;
    ensure(gsi < 24 && !(b->level & 1u << gsi) == level);
    b->level ^= 1u << gsi;
}

/* ---- invariants ---- */

static uint64_t bar_value(const struct pci_func *f, unsigned i)
{
    const uint8_t *reg = f->config + PCI_BAR0 + 4 * i;
    uint64_t low = ld32(reg) & (f->bar[i].kind == PCI_BAR_IO ? ~3u : ~15u);
    return f->bar[i].kind == PCI_BAR_MEM64 ? low | (uint64_t)ld32(reg + 4) << 32 : low;
}

static void check_bars(const struct pci_host *h, const struct pci_func *f)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *a = &f->bar[i];
        if (!a->mapped)
            continue;
        ensure(a->at == bar_value(f, i) && a->at && !(a->at & (a->size - 1)));
        ensure(ld16(f->config + PCI_COMMAND) & (a->kind == PCI_BAR_IO ? PCI_CMD_IO : PCI_CMD_MEMORY));
        ensure(a->at + a->size <= PCI_ECAM_GPA || a->at >= PCI_ECAM_GPA + PCI_ECAM_SIZE);
        for (const struct pci_func *g = h->funcs; g; g = g->next)
            for (unsigned k = 0; k < PCI_BARS; k++)
                ensure(&g->bar[k] == a || !g->bar[k].mapped ||
                       (g->bar[k].kind == PCI_BAR_IO) != (a->kind == PCI_BAR_IO) ||
                       g->bar[k].at + g->bar[k].size <= a->at || a->at + a->size <= g->bar[k].at);
    }
}

static void check(struct box *b)
{
    unsigned count[PCI_INTX_GSIS] = {0};
    for (const struct pci_func *f = b->pci.host.funcs; f; f = f->next) {
        check_bars(&b->pci.host, f);
        ensure(pci_func_requester(f).rid == (f->bus->number << 8 | f->devfn));
        ensure(!memcmp(f->config, f->reset, 4) && f->config[PCI_HEADER] == f->reset[PCI_HEADER]);
        if (f->intx_told)
            count[f->gsi - PCI_INTX_GSI]++;
        ensure(!f->intx_told || !(pci_msix_on(f) || pci_msi_on(f)));
    }
    for (unsigned i = 0; i < PCI_INTX_GSIS; i++) {
        ensure(count[i] == b->pci.host.intx_count[i]);
        ensure(!(b->level & 1u << (PCI_INTX_GSI + i)) == !count[i]);
    }
}

static void check_reset(struct box *b)
{
    pci_host_reset(&b->pci.host);
    ensure(!b->level);
    for (const struct pci_func *f = b->pci.host.funcs; f; f = f->next) {
        ensure(!memcmp(f->config, f->reset, sizeof f->config));
        for (unsigned i = 0; i < PCI_BARS; i++)
            ensure(!f->bar[i].mapped);
    }
    check(b);
}

/* ---- steps ---- */

/* Mostly registers that exist, of functions that do. */
static uint64_t config_address(struct script *s)
{
    static const uint8_t regs[] = {0x04, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x3c, 0x3e,
                                   0x42, 0x48, 0x7e, 0x80, 0x84, 0x88, 0x8c, 0x90, 0x94, 0x96, 0x98};
    static const uint8_t devfn[] = {0, 0x10, 0x18, 0x20, 0x21, 0xf8};
    uint8_t a = (uint8_t)script_get(s, 1), r = (uint8_t)script_get(s, 1);
    uint64_t where = (uint64_t)(a >> 6) << 20 | (uint64_t)devfn[a % 6] << 12;
    return PCI_ECAM_GPA + where + (r < 200 ? regs[r % sizeof regs] + r / 50 : script_get(s, 2) & 0xfff);
}

/* Values that guests write: places, sizes, all of anything. */
static uint64_t value(struct script *s)
{
    uint8_t k = (uint8_t)script_get(s, 1);
    switch (k & 7) {
    case 0:
        return 0xd0000000u + (k >> 3) * 0x8000u;
    case 1:
        return UINT64_MAX;
    case 2:
        return 7;
    case 3:
        return 0x00020100u + (k >> 3 & 3) * 0x00010100u;
    case 4:
        return 0xc000u | k;
    default:
        return script_get(s, 4);
    }
}

static struct pci_func *func(struct box *b, uint8_t n)
{
    return irqtest_pci_func(b->t[n % PLACES]);
}

static void use_bar(struct box *b, struct script *s)
{
    struct pci_func *f = func(b, (uint8_t)script_get(s, 1));
    uint8_t k = (uint8_t)script_get(s, 1);
    uint64_t at = f->bar[k & 1].at + script_get(s, 2) % (f->bar[k & 1].size + 8);
    unsigned size = 1u << (k >> 1 & 3);
    bus_write(&b->pci.mmio, at, size, k & 8 ? value(s) : script_get(s, size));
    bus_read(&b->pci.mmio, at, size);
}

static void use_dma(struct box *b, struct script *s)
{
    uint8_t buf[300];
    struct iovec iov[3];
    unsigned n = 0;
    struct pci_func *f = func(b, (uint8_t)script_get(s, 1));
    uint64_t at = script_get(s, 1) & 1 ? script_get(s, 8) : script_get(s, 2), len = script_get(s, 2) % sizeof buf;
    pci_dma_read(f, at, buf, len);
    pci_dma_write(f, at, buf, len);
    pci_dma_iov(f, at, len * 100, true, iov, &n, 3);
    for (unsigned i = 0; i < n; i++)
        ensure((uint8_t *)iov[i].iov_base >= b->pci.ram.low &&
               (uint8_t *)iov[i].iov_base + iov[i].iov_len <= b->pci.ram.low + RAM_SIZE);
}

static void one_step(struct box *b, struct script *s)
{
    uint8_t op = (uint8_t)script_get(s, 1);
    struct pci_func *f = func(b, op >> 3);
    unsigned size = 1u << (op >> 6);
    struct err e = {""};
    uint64_t at;
    switch (op & 7) {
    case 0:
    case 1:
    case 2:
        at = config_address(s);
        bus_write(&b->pci.mmio, at, size, value(s));
        bus_read(&b->pci.mmio, at, size);
        break;
    case 3:
        bus_write(&b->pci.ports, 0xcf8 + script_get(s, 1) % 8, size, script_get(s, 4));
        bus_read(&b->pci.ports, 0xcf8 + op % 8, size);
        break;
    case 4:
        use_bar(b, s);
        break;
    case 5:
        use_dma(b, s);
        break;
    case 6:
        msix_fire(f, (unsigned)script_get(s, 2));
        msi_fire(f, op >> 5);
        pci_intx_set(f, op & 8);
        break;
    default:
        if (op == 0xff)
            ensure(pci_host_assign(&b->pci.host, &e) == 0);
        else if (op == 0xf7)
            check_reset(b);
        else
            pci_intx_set(f, op & 0x80);
    }
    check(b);
}

/* ---- a machine ---- */

static void open_box(struct box *b, uint8_t *memory)
{
    struct err e = {""};
    memset(b, 0, sizeof *b);
    b->pci.ram = (struct ram){.low = memory, .low_size = RAM_SIZE};
    pci_box_init(&b->pci, (struct pci_host_config){.port = {.deliver = deliver},
                                                   .intx = {line, b, 0},
                                                   .mem64_base = UINT64_C(0x100000000),
                                                   .mem64_len = UINT64_C(0x100000000)});
    b->slot = epoch_slot(&b->pci.epoch);
    ensure(pci_port_init(&b->port[0], &b->pci.host, PCI_DEVFN(2, 0), "a", 1, &e) == 0);
    ensure(pci_port_init(&b->port[1], &b->pci.host, PCI_DEVFN(3, 0), "b", 2, &e) == 0);
    for (unsigned i = 0; i < PLACES; i++) {
        const struct irqtest_pci_config t = {.host = &b->pci.host,
                                             .bus = i < 2 ? &b->port[i].bus : NULL,
                                             .devfn = i < 2 ? 0 : PCI_DEVFN(4, i - 2),
                                             .msix = i == 3 ? 100 : 3,
                                             .msi = 1u << i};
        ensure(irqtest_pci_create(&t, &b->t[i], &e) == 0);
    }
    epoch_enter(&b->pci.epoch, b->slot);
}

static void close_box(struct box *b)
{
    epoch_leave(&b->pci.epoch, b->slot);
    for (unsigned i = 0; i < PLACES; i++)
        irqtest_pci_destroy(b->t[i]);
    pci_port_fini(&b->port[0]);
    pci_port_fini(&b->port[1]);
    pci_box_fini(&b->pci);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t memory[RAM_SIZE] __attribute__((aligned(4096)));
    static struct box b;
    struct script s = {data, size};
    struct err e = {""};
    memset(memory, 0, sizeof memory);
    open_box(&b, memory);
    if (script_get(&s, 1) & 1)
        ensure(pci_host_assign(&b.pci.host, &e) == 0);
    while (s.left)
        one_step(&b, &s);
    check_reset(&b);
    close_box(&b);
    return 0;
}
