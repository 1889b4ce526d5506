#include "cli/explain.h"

#include "base/bits.h"
#include "cli/command.h"
#include "cli/options.h"
#include "irq/fabric.h"
#include "irq/ioapic.h"
#include "irq/remap_name.h"
#include "vm/probe.h"
#include "x86/apic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MAX 16 /* lines about receivers */

enum kind { KIND_MSI, KIND_RTE, KIND_ICR };

struct explain {
    FILE *out;
    enum kind kind;
    uint64_t value; /* MSI: the address */
    uint32_t data;
    requester_id_t from;
    bool from_given;
    bool entry_given;
    struct probe_entry entry; /* of the remapping table */
    int x2apic;               /* 1, 0; -1: as a guest would have it */
    struct vm_config cfg;
    struct probe *p;
    const struct remap *remap;
};

/* ---- arguments ---- */

static const char usage[] =
    "hecaton explain msi ADDRESS DATA [BUS:DEV.FN] [irte=HIGH:LOW] [xapic|x2apic] [-- OPTION...]\n"
    "hecaton explain rte VALUE [irte=HIGH:LOW] [xapic|x2apic] [-- OPTION...]\n"
    "hecaton explain icr VALUE [xapic|x2apic] [-- OPTION...]\n"
    "Says in words where an interrupt message, an I/O APIC entry or a value of the interrupt\n"
    "command register goes, on the machine that OPTIONs describe (-smp, -machine, -cpu, -device).\n"
    "With a remapping unit, irte= is the table entry that the guest has there, two numbers of\n"
    "64 bits. Numbers are hexadecimal with or without 0x. By default APICs are in x2APIC mode if the\n"
    "machine has it.\n";

static int number(const char *s, uint64_t max, uint64_t *out, struct err *e)
{
    char *end = NULL;
    errno = 0;
    *out = s ? strtoull(s, &end, 16) : 0;
    if (s && (*end == 'h' || *end == 'H'))
        end++;
    if (!s || end == s || *end || errno || *out > max || *s == '-')
        return err_set(e, -EINVAL, "explain: %s%s%s is not a hexadecimal number of at most %llx: explain -h shows how",
                       s ? "'" : "", s ? s : "nothing", s ? "'" : "", (unsigned long long)max);
    return 0;
}

/* "00:1f.2" */
static bool requester(const char *s, requester_id_t *out)
{
    unsigned bus, dev, fn;
    int n = 0;
    if (sscanf(s, "%2x:%2x.%1x%n", &bus, &dev, &fn, &n) != 3 || s[n] || dev > 31 || fn > 7)
        return false;
    *out = REQUESTER_ID(bus << 8 | dev << 3 | fn);
    return true;
}

/* "irte=HIGH:LOW" */
static int table_entry(struct explain *x, const char *pair, struct err *e)
{
    char high[32];
    const char *colon = strchr(pair, ':');
    if (!colon)
        return err_set(e, -EINVAL, "explain: irte=%s: give both halves, as irte=HIGH:LOW", pair);
    snprintf(high, sizeof high, "%.*s", (int)(colon - pair), pair);
    int rc = number(high, UINT64_MAX, &x->entry.high, e);
    x->entry_given = true;
    return rc ? rc : number(colon + 1, UINT64_MAX, &x->entry.low, e);
}

static int trailing(struct explain *x, const char *word, struct err *e)
{
    if (x->kind != KIND_ICR && !strncmp(word, "irte=", 5))
        return table_entry(x, word + 5, e);
    if (!strcmp(word, "x2apic") || !strcmp(word, "xapic")) {
        x->x2apic = *word == 'x' && word[1] == '2';
        return 0;
    }
    if (x->kind == KIND_MSI && requester(word, &x->from)) {
        x->from_given = true;
        return 0;
    }
    return err_set(e, -EINVAL, "explain: '%s' is neither xapic nor x2apic%s", word,
                   x->kind == KIND_MSI ? " nor a sender as 00:1f.2" : "");
}

/* The machine's part of the command line. A kernel's name is not needed here. */
static int machine_options(struct explain *x, int argc, char **argv, struct err *e)
{
    char **args = calloc((size_t)argc + 4, sizeof *args);
    int rc = -ENOMEM;
    if (!args)
        return err_set(e, rc, "no host memory");
    args[0] = "hecaton";
    args[1] = "-kernel";
    args[2] = "(none)";
    memcpy(args + 3, argv, (size_t)argc * sizeof *args);
    enum options_result r = options_parse(argc + 3, args, &x->cfg, x->out, e);
    free(args);
    return r == OPTIONS_RUN ? 0 : r == OPTIONS_DONE ? 1 : -EINVAL;
}

/* 0: go on; 1: help was printed; -errno. */
static int parse(struct explain *x, int argc, char **argv, struct err *e)
{
    static const char *const kinds[] = {[KIND_MSI] = "msi", [KIND_RTE] = "rte", [KIND_ICR] = "icr"};
    uint64_t data = 0;
    int i = 1, rc;
    if (argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "-help") || !strcmp(argv[1], "--help"))) {
        fputs(usage, x->out);
        return 1;
    }
    unsigned k = 0;
    while (k < ARRAY_SIZE(kinds) && (i >= argc || strcmp(argv[i], kinds[k])))
        k++;
    if (k == ARRAY_SIZE(kinds))
        return err_set(e, -EINVAL, "explain: give msi ADDRESS DATA, rte VALUE or icr VALUE: explain -h shows how");
    x->kind = (enum kind)k;
    rc = number(argv[++i], UINT64_MAX, &x->value, e);
    if (!rc && x->kind == KIND_MSI)
        rc = number(argv[++i], UINT32_MAX, &data, e);
    x->data = (uint32_t)data;
    for (i++; !rc && i < argc && *argv[i] != '-'; i++)
        rc = trailing(x, argv[i], e);
    if (rc)
        return rc;
    i += i < argc && !strcmp(argv[i], "--");
    return machine_options(x, argc - i, argv + i, e);
}

/* ---- what happened ---- */

static void note(struct explain *x, const char *head, const char *text)
{
    fprintf(x->out, "%-10s%s\n", head, text);
}

static void show_interrupt(struct explain *x, const struct irq *irq)
{
    fprintf(x->out, "%-10s%s, ", "interrupt", irq_mode_name(irq->mode));
    if (irq->mode == IRQ_FIXED || irq->mode == IRQ_LOWEST)
        fprintf(x->out, "vector %02Xh, ", irq->vector);
    fprintf(x->out, "%s, to the %s destination %Xh", irq->level ? "level" : "edge",
            irq->logical ? "logical" : "physical", irq->dest);
    fprintf(x->out, irq->logical ? "\n" : " (%u)\n", irq->dest);
}

/* CPUs in a row, with IDs in a row, that got the same. */
struct got_run {
    uint32_t first, n;
    struct probe_got got;
};

static void show_run(struct explain *x, const struct got_run *r)
{
    const struct probe_got *g = &r->got;
    uint32_t id = fabric_id(probe_fabric(x->p), VCPU_IDX(r->first)).id, more = r->n - 1;
    if (more)
        fprintf(x->out, "%-10sCPUs %u-%u (APIC IDs %u-%u, %Xh-%Xh):", "taken by", r->first, r->first + more, id,
                id + more, id, id + more);
    else
        fprintf(x->out, "%-10sCPU %u (APIC ID %u, %Xh):", "taken by", r->first, id, id);
    if (g->vector >= 0 && g->vector != FABRIC_IRQ_EXTINT)
        fprintf(x->out, " vector %02Xh", (unsigned)g->vector);
    if (g->vector == FABRIC_IRQ_EXTINT)
        fputs(" the PIC's interrupt", x->out);
    if (g->events & FABRIC_EV_NMI)
        fputs(" NMI", x->out);
    if (g->events & FABRIC_EV_SMI)
        fputs(" SMI", x->out);
    if (g->events & FABRIC_EV_INIT)
        fputs(" INIT", x->out);
    if (g->events & FABRIC_EV_SIPI)
        fprintf(x->out, " start-up at %05Xh", (unsigned)g->sipi << 12);
    putc('\n', x->out);
}

static bool continues(struct explain *x, const struct got_run *r, uint32_t cpu, const struct probe_got *g)
{
    struct fabric *f = probe_fabric(x->p);
    return r->n && cpu == r->first + r->n &&
           fabric_id(f, VCPU_IDX(cpu)).id == fabric_id(f, VCPU_IDX(r->first)).id + r->n && g->vector == r->got.vector &&
           g->events == r->got.events && g->sipi == r->got.sipi;
}

/* Everybody who got something, and what. How many. */
static uint32_t show_receivers(struct explain *x)
{
    struct got_run run = {0};
    uint32_t n = 0, lines = 0;
    for (uint32_t i = 0; i < probe_cpus(x->p); i++) {
        struct probe_got g = probe_take(x->p, VCPU_IDX(i));
        if (g.vector < 0 && !g.events)
            continue;
        n++;
        if (continues(x, &run, i, &g)) {
            run.n++;
            continue;
        }
        if (run.n && lines++ < SHOWN_MAX)
            show_run(x, &run);
        run = (struct got_run){i, 1, g};
    }
    if (run.n && lines++ < SHOWN_MAX)
        show_run(x, &run);
    if (lines > SHOWN_MAX)
        fprintf(x->out, "%-10sand others: %u of %u CPUs\n", "", n, probe_cpus(x->p));
    return n;
}

static void why_nobody(struct explain *x, const struct irq *irq)
{
    vcpu_idx_t cpu;
    note(x, "taken by", "nobody");
    if (irq->mode <= IRQ_LOWEST && irq->vector < 16)
        note(x, "because", "vectors 00h to 0Fh are illegal: the receiver sets its ESR's \"received illegal vector\"");
    else if (irq->logical)
        note(x, "because", "no APIC's logical ID (its LDR) matches that destination");
    else if (!fabric_find(probe_fabric(x->p), APIC_ID(irq->dest), &cpu))
        fprintf(x->out, "%-10sno CPU has APIC ID %u (%Xh); the highest is %u\n", "because", irq->dest, irq->dest,
                vm_config_max_id(&x->cfg));
    else
        note(x, "because", "that CPU's APIC takes no such interrupt in its mode");
}

static void notes_on_receivers(struct explain *x, const struct irq *irq, uint32_t n)
{
    if (irq->mode == IRQ_LOWEST && n)
        note(x, "note", "lowest priority: of the CPUs named, the (vector mod count)-th takes it");
    if (!irq->logical && irq->dest == APIC_BROADCAST8 && irq->dest8 && n > 1)
        note(x, "note", "an 8-bit FFh is everyone in xAPIC mode");
    if (irq->dest == APIC_BROADCAST32)
        note(x, "note", "FFFFFFFFh is everyone in x2APIC mode");
}

/* ---- why that format ---- */

static void why_form(struct explain *x, struct msi_msg msg, const struct remap_result *r)
{
    FILE *out = x->out;
    bool ext = x->remap->ext_dest_id;
    uint64_t hi = bits(msg.addr, 11, 5);
    fprintf(out, "%-10s%s", "format", remap_form_name(r->form));
    if (r->form == REMAP_FORM_EXT_DEST)
        fprintf(out, ": the machine offers ext-dest-id, address bit 4 is clear and bits 11:5 are not 0\n");
    else if (r->form != REMAP_FORM_COMPAT)
        putc('\n', out);
    else if (msg.addr & BIT(4))
        fprintf(out, ": bit 4 asks for remapping, but no unit remaps: it means nothing, nor do bits 11:5\n");
    else if (hi && !ext)
        fprintf(out, ": the machine does not offer ext-dest-id, so bits 11:5 mean nothing\n");
    else
        fprintf(out, hi ? "\n" : ": bits 11:4 are 0\n");
}

static void remedy(struct explain *x, struct msi_msg msg, const struct remap_result *r)
{
    uint32_t wide = (uint32_t)(bits(msg.addr, 19, 12) | bits(msg.addr, 11, 5) << 8);
    if (r->fault == REMAP_OK && r->form == REMAP_FORM_COMPAT && msg.addr & BIT(4))
        note(x, "remedy", "a guest writes this for a remapping unit: -device intel-iommu,intremap=on,eim=on");
    else if (r->fault == REMAP_OK && r->form == REMAP_FORM_COMPAT && bits(msg.addr, 11, 5))
        fprintf(x->out,
                "%-10sbits 11:5 and 19:12 together name APIC ID %u (%Xh): offer ext-dest-id, by\n"
                "%-10s-machine kernel-irqchip=split -cpu max,kvm-msi-ext-dest-id=on, or add a remapping unit\n",
                "remedy", wide, wide, "");
    else if (r->fault == REMAP_HIGH_ADDRESS)
        fprintf(x->out,
                "%-10sbits 63:40 would be ID bits 31:8 to KVM (%Xh), bits 55:32 to Windows (%Xh); this machine\n"
                "%-10stakes 15-bit destinations in bits 11:5 and 19:12\n",
                "remedy", (uint32_t)(bits(msg.addr, 63, 40) << 8 | bits(msg.addr, 19, 12)),
                (uint32_t)(bits(msg.addr, 55, 32) << 8 | bits(msg.addr, 19, 12)), "");
    else if (r->fault == REMAP_VTD_COMPAT_BLOCKED)
        note(x, "remedy",
             "write the remappable format (bit 4 set, the entry's index in bits 19:5), or let GCMD.CFI pass it");
    else if (r->fault == REMAP_VTD_SOURCE)
        note(x, "remedy",
             "the entry's SID, SQ and SVT (bits 83:64) name another sender: use the entry made for this one");
    else if (r->fault == REMAP_NOT_INTERRUPT)
        note(x, "remedy", "interrupt messages go to FEE00000h-FEEFFFFFh");
}

/* ---- the three kinds ---- */

static void follow(struct explain *x, struct msi_msg msg, const struct remap_result *r)
{
    why_form(x, msg, r);
    if (r->fault != REMAP_OK) {
        fprintf(x->out, "%-10s%02Xh: %s\n", "fault", r->fault, remap_fault_name(r->fault));
    } else {
        show_interrupt(x, &r->irq);
        probe_deliver(x->p, r->irq);
        uint32_t n = show_receivers(x);
        if (!n)
            why_nobody(x, &r->irq);
        notes_on_receivers(x, &r->irq, n);
    }
    remedy(x, msg, r);
}

/* Which entry of the unit's table the message names. True: there is nothing more to say, as its contents are the
 * guest's and were not given. */
static bool through_unit(struct explain *x, struct msi_msg msg)
{
    struct remap_result r;
    uint32_t index = 0;
    bool intel = x->cfg.iommu.kind == VM_IOMMU_INTEL;
    if (!probe_unit_on(x->p, x->from))
        return false;
    fprintf(x->out, "%-10s%s, switched on as a guest's kernel does\n", "unit",
            intel ? "VT-d, a table of 65536 entries, compatibility format blocked"
                  : "AMD-Vi, a table of 512 entries for the sender");
    if (!probe_unit_index(x->p, msg, x->from, &r, &index))
        return false;
    fprintf(x->out, "%-10s%u (%Xh) of the table: 16 bytes at its base + %Xh, in guest memory\n", "entry", index, index,
            index * 16);
    if (x->entry_given) {
        fprintf(x->out, "%-10s%016llXh:%016llXh\n", "", (unsigned long long)x->entry.high,
                (unsigned long long)x->entry.low);
        probe_unit_entry(x->p, x->entry);
        return false;
    }
    fprintf(x->out, "%-10s%s\n", "format", remap_form_name(r.form));
    note(x, "next", "what that entry holds decides the rest: give it as irte=HIGH:LOW");
    return true;
}

static void show_message(struct explain *x, struct msi_msg msg)
{
    fprintf(x->out, "%-10saddress %08llXh, data %08Xh, from %02x:%02x.%x\n", "message", (unsigned long long)msg.addr,
            msg.data, x->from.rid >> 8, x->from.rid >> 3 & 31, x->from.rid & 7);
    explain_msi_fields(x->out, msg);
}

static void explain_msi(struct explain *x)
{
    struct msi_msg msg = {.addr = x->value, .data = x->data};
    show_message(x, msg);
    if (through_unit(x, msg))
        return;
    struct remap_result r = remap_msi(x->remap, msg, x->from, REMAP_LOOKUP);
    follow(x, msg, &r);
}

/* Write the entry to the machine's own I/O APIC, and see what it keeps. */
static uint64_t through_ioapic(struct explain *x)
{
    struct bus *b = probe_mmio(x->p);
    uint64_t half[2];
    for (unsigned i = 0; i < 2; i++) {
        bus_write(b, IOAPIC_GPA + IOAPIC_REGSEL, 4, IOAPIC_REG_RTE + i);
        bus_write(b, IOAPIC_GPA + IOAPIC_WINDOW, 4, i ? x->value >> 32 : x->value & 0xffffffff);
        half[i] = bus_read(b, IOAPIC_GPA + IOAPIC_WINDOW, 4);
    }
    return half[0] | half[1] << 32;
}

static void explain_rte(struct explain *x)
{
    uint64_t kept = through_ioapic(x);
    fprintf(x->out, "%-10s%016llXh\n", "entry", (unsigned long long)x->value);
    explain_rte_fields(x->out, x->value);
    if ((kept ^ x->value) & ~(RTE_STATUS | RTE_REMOTE_IRR))
        fprintf(x->out, "%-10s%016llXh is what this machine's I/O APIC keeps of it\n", "kept",
                (unsigned long long)kept);
    if (kept & RTE_MASKED)
        note(x, "note", "the entry is masked: the pin sends nothing until it is unmasked; then:");
    x->from = probe_ioapic_rid(x->p);
    struct msi_msg msg = remap_rte_msg(kept);
    show_message(x, msg);
    if (through_unit(x, msg))
        return;
    struct remap_result r = remap_rte(x->remap, kept, x->from, REMAP_LOOKUP);
    follow(x, msg, &r);
}

static void explain_icr(struct explain *x)
{
    struct irq irq = {.dest = (uint32_t)(x->x2apic ? x->value >> 32 : x->value >> 56),
                      .vector = (uint8_t)x->value,
                      .mode = (uint8_t)bits(x->value, 10, 8),
                      .logical = (uint8_t)bits(x->value, 11, 11),
                      .dest8 = !x->x2apic};
    fprintf(x->out, "%-10s%016llXh, written by CPU 0 in %s mode\n", "ICR", (unsigned long long)x->value,
            x->x2apic ? "x2APIC" : "xAPIC");
    explain_icr_fields(x->out, x->value, x->x2apic);
    if (!probe_icr(x->p, VCPU_IDX(0), x->value)) {
        note(x, "answer", "#GP: bits 31:20, 17:16 and 13 are reserved");
        return;
    }
    uint32_t n = show_receivers(x);
    if (n)
        notes_on_receivers(x, &irq, n);
    else if (bits(x->value, 19, 18))
        note(x, "taken by", "nobody");
    else
        why_nobody(x, &irq);
}

/* ---- the command ---- */

static int bring_up(struct explain *x, struct err *e)
{
    if (x->x2apic < 0)
        x->x2apic = probe_has_x2apic(x->p);
    if (!probe_bring_up(x->p, x->x2apic))
        return err_set(e, -EINVAL, "explain: the machine's -cpu has no x2APIC mode");
    fprintf(x->out, "%-10s%u CPU%s, APIC IDs up to %u, in %s mode; ext-dest-id %s\n", "machine", probe_cpus(x->p),
            probe_cpus(x->p) == 1 ? "" : "s", vm_config_max_id(&x->cfg), x->x2apic ? "x2APIC" : "xAPIC",
            x->remap->ext_dest_id ? "offered" : "not offered");
    return 0;
}

static int run(struct explain *x, struct err *e)
{
    static void (*const explain[])(struct explain *) = {
        [KIND_MSI] = explain_msi, [KIND_RTE] = explain_rte, [KIND_ICR] = explain_icr};
    int rc = config_check(&x->cfg, e);
    if (rc || (rc = probe_create(&x->cfg, &x->p, e)))
        return rc;
    x->remap = probe_remap(x->p);
    rc = bring_up(x, e);
    if (!rc)
        explain[x->kind](x);
    probe_destroy(x->p);
    return rc;
}

int command_explain(int argc, char **argv, FILE *out)
{
    struct explain x = {.out = out, .x2apic = -1};
    struct err e = {{0}};
    int code = 0;
    vm_config_init(&x.cfg);
    int rc = parse(&x, argc, argv, &e);
    if (rc < 0)
        code = complain(&e, EXIT_USAGE);
    else if (!rc && run(&x, &e) < 0)
        code = complain(&e, EXIT_RUNTIME);
    vm_config_fini(&x.cfg);
    return code;
}
