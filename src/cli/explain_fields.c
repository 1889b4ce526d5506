#include "cli/explain.h"

#include "base/bits.h"
#include "x86/apic.h"

static const char *const delivery[8] = {"fixed", "lowest priority", "SMI",   "reserved", "NMI",
                                        "INIT",  "start-up",        "ExtINT"};
static const char *const physical_logical[] = {"physical", "logical"};
static const char *const edge_level[] = {"edge", "level"};
static const char *const deassert_assert[] = {"de-assert", "assert"};
static const char *const shorthand[] = {"none: the destination field", "self", "all including self", "all but self"};
static const char *const no_yes[] = {"no", "yes"};

struct field {
    const char *of; /* "address", "data" */
    unsigned hi, lo;
    const char *name;
    const char *const *values; /* by value; NULL: a number */
};

static void show(FILE *out, uint64_t v, const struct field *f, size_t n)
{
    for (; n; n--, f++) {
        char where[32];
        uint64_t val = bits(v, f->hi, f->lo);
        if (f->hi == f->lo)
            snprintf(where, sizeof where, "%s %u", f->of, f->lo);
        else
            snprintf(where, sizeof where, "%s %u:%u", f->of, f->hi, f->lo);
        fprintf(out, "  %-14s %7llXh  %s", where, (unsigned long long)val, f->name);
        fprintf(out, f->values ? ": %s\n" : "\n", f->values ? f->values[val] : "");
    }
}

/* SDM 3A, "Message Address Register Format", "Message Data Register Format"; the extended bits: interrupts past 255. */
void explain_msi_fields(FILE *out, struct msi_msg msg)
{
    static const struct field compat[] = {
        {"address", 31, 20, "FEEh: the interrupt window", NULL},
        {"address", 19, 12, "destination, bits 7:0", NULL},
        {"address", 11, 5, "destination, bits 14:8, where ext-dest-id is offered", NULL},
        {"address", 4, 4, "remappable format", no_yes},
        {"address", 3, 3, "redirection hint (one receiver)", no_yes},
        {"address", 2, 2, "destination mode", physical_logical},
    };
    static const struct field remappable[] = {
        {"address", 31, 20, "FEEh: the interrupt window", NULL},
        {"address", 19, 5, "handle, bits 14:0", NULL},
        {"address", 4, 4, "remappable format", no_yes},
        {"address", 3, 3, "SHV: the data holds a subhandle", no_yes},
        {"address", 2, 2, "handle, bit 15", NULL},
    };
    static const struct field data[] = {
        {"data", 7, 0, "vector", NULL},
        {"data", 10, 8, "delivery mode", delivery},
        {"data", 14, 14, "level", deassert_assert},
        {"data", 15, 15, "trigger mode", edge_level},
    };
    static const struct field subhandle = {"data", 15, 0, "subhandle", NULL};
    static const struct field high = {"address", 63, 32, "bits past 31", NULL};
    if (msg.addr >> 32)
        show(out, msg.addr, &high, 1);
    if (msg.addr & BIT(4))
        show(out, msg.addr, remappable, ARRAY_SIZE(remappable));
    else
        show(out, msg.addr, compat, ARRAY_SIZE(compat));
    if ((msg.addr & (BIT(4) | BIT(3))) == (BIT(4) | BIT(3)))
        show(out, msg.data, &subhandle, 1);
    else
        show(out, msg.data, data, ARRAY_SIZE(data));
}

/* 82093AA, "I/O Redirection Table Registers"; VT-d, "Programming in I/OxAPIC". */
void explain_rte_fields(FILE *out, uint64_t rte)
{
    static const struct field compat[] = {
        {"entry", 63, 56, "destination, bits 7:0", NULL},
        {"entry", 55, 49, "destination, bits 14:8, where ext-dest-id is offered", NULL},
        {"entry", 48, 48, "remappable format", no_yes},
        {"entry", 11, 11, "destination mode", physical_logical},
    };
    static const struct field remappable[] = {
        {"entry", 63, 49, "index, bits 14:0", NULL},
        {"entry", 48, 48, "remappable format", no_yes},
        {"entry", 11, 11, "index, bit 15", NULL},
    };
    static const struct field rest[] = {
        {"entry", 16, 16, "masked", no_yes},         {"entry", 15, 15, "trigger mode", edge_level},
        {"entry", 14, 14, "remote IRR", no_yes},     {"entry", 13, 13, "active low", no_yes},
        {"entry", 10, 8, "delivery mode", delivery}, {"entry", 7, 0, "vector", NULL},
    };
    if (rte & RTE_FORMAT)
        show(out, rte, remappable, ARRAY_SIZE(remappable));
    else
        show(out, rte, compat, ARRAY_SIZE(compat));
    show(out, rte, rest, ARRAY_SIZE(rest));
}

/* SDM 3A, "Interrupt Command Register (ICR)" and "ICR Operation in X2APIC Mode". */
void explain_icr_fields(FILE *out, uint64_t icr, bool x2apic)
{
    static const struct field dest32 = {"ICR", 63, 32, "destination", NULL};
    static const struct field dest8 = {"ICR", 63, 56, "destination", NULL};
    static const struct field rest[] = {
        {"ICR", 19, 18, "shorthand", shorthand},   {"ICR", 15, 15, "trigger mode", edge_level},
        {"ICR", 14, 14, "level", deassert_assert}, {"ICR", 11, 11, "destination mode", physical_logical},
        {"ICR", 10, 8, "delivery mode", delivery}, {"ICR", 7, 0, "vector, or start-up page", NULL},
    };
    show(out, icr, x2apic ? &dest32 : &dest8, 1);
    show(out, icr, rest, ARRAY_SIZE(rest));
}
