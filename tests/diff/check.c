/* Comparing outcomes, and writing and reading the corpus. */
#include "oracle.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const reg_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

enum { ARITH = 0x8d5, COMPARED_FLAGS = 0x244dd5 | 0x100 };

static ZydisMachineMode zydis_mode(const struct test *t)
{
    return t->kind & KIND_32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64;
}

/* ---- comparing ---- */

struct diff {
    FILE *to;
    unsigned n;
};

static void differs(struct diff *d, const char *what, unsigned i, uint64_t native, uint64_t guest)
{
    d->n++;
    if (d->to)
        fprintf(d->to, "  %s%.0u native %016" PRIx64 " engine %016" PRIx64 "\n", what, i, native, guest);
}

static void compare_bytes(struct diff *d, const char *what, const uint8_t *native, const uint8_t *guest, unsigned from,
                          unsigned n)
{
    if (!memcmp(native + from, guest + from, n))
        return;
    d->n++;
    if (!d->to)
        return;
    fprintf(d->to, "  %s at %u:\n    native", what, from);
    for (unsigned i = from; i < from + n; i++)
        fprintf(d->to, " %02x", native[i]);
    fprintf(d->to, "\n    engine");
    for (unsigned i = from; i < from + n; i++)
        fprintf(d->to, " %02x", guest[i]);
    fprintf(d->to, "\n");
}

static void compare_fx(struct diff *d, const uint8_t *native, const uint8_t *guest)
{
    compare_bytes(d, "fcw fsw ftw", native, guest, 0, 5);
    compare_bytes(d, "mxcsr", native, guest, 24, 4);
    for (unsigned i = 0; i < 8; i++)
        compare_bytes(d, "st", native, guest, 32 + i * 16, 10);
    for (unsigned i = 0; i < 16; i++)
        compare_bytes(d, "xmm", native, guest, 160 + i * 16, 16);
}

/* Flags that count: all but the undefined ones; those of an earlier point, too, if the test stopped there. */
static uint64_t flag_mask(const struct test *t)
{
    uint64_t end = t->rip + t->code_len + VEC_END_RIP;
    bool whole = t->r.vec == 3 && (t->r.rip == end || t->insns == 1);
    return COMPARED_FLAGS & ~(whole ? t->undefined : t->undefined_mid | (t->insns == 1 ? 0 : t->undefined));
}

/* Page faults. The kernel reports addresses past the user's as present whatever they are; and which field of a long
 * operand FRSTOR, FLDENV and FXRSTOR look at first is not defined. */
static bool same_fault(const struct test *t, const struct result *g)
{
    bool kernel = t->r.cr2 >= UINT64_C(0x7ffffffff000);
    unsigned group = t->group & (GROUPS32 - 1);
    bool pages = group == G_X87 || group == G_SSE;
    if ((t->r.err ^ g->r.err) & (kernel ? ~UINT64_C(1) : ~UINT64_C(0)))
        return false;
    return t->r.cr2 == g->r.cr2 || (pages && t->r.cr2 >> 12 == g->r.cr2 >> 12);
}

/* Whether an unmasked overflow or underflow sets PE, too, depends on whether the result is exact but for its exponent;
 * the engine computes with exceptions masked, and CPUs differ for sums. SDM 1, "Numeric Overflow Exception (#O)". */
static void mask_inexact(const struct test *t, uint8_t fx[512])
{
    struct insn in;
    if (t->r.vec != 19)
        return;
    if (t->r_fx[24] & 0x18)
        fx[24] |= 0x20;
    /* DPPS, DPPD: whether the sums are still looked at after a product that faults, is not defined. */
    if (decode_insn(t->code, t->code_len, code_mode(t->kind), &in) == DECODE_OK && in.map == 3 &&
        (in.opcode & ~1) == 0x40)
        fx[24] |= 0x3f;
}

static bool has_error_code(uint64_t vec)
{
    return vec == 8 || (vec >= 10 && vec <= 14) || vec == 17;
}

bool check_equal(const struct test *t, const struct result *g, FILE *to)
{
    struct diff d = {.to = to};
    uint64_t flags = flag_mask(t), regs = t->kind & KIND_32 ? 0xffffffff : UINT64_MAX; /* the rest: undefined */
    if (t->r.vec == VEC_DIED)
        return true; /* nothing to compare with; the driver counts these */
    if (t->r.vec != g->r.vec)
        differs(&d, "vector", 0, t->r.vec, g->r.vec);
    if (t->r.rip != g->r.rip)
        differs(&d, "rip", 0, t->r.rip, g->r.rip);
    for (unsigned i = 0; i < (t->kind & KIND_32 ? 8 : 16); i++)
        if ((t->r.gpr[i] ^ g->r.gpr[i]) & regs)
            differs(&d, reg_names[i], 0, t->r.gpr[i], g->r.gpr[i]);
    if ((t->r.rflags ^ g->r.rflags) & flags)
        differs(&d, "rflags", 0, t->r.rflags & flags, g->r.rflags & flags);
    if (t->r.vec == g->r.vec && t->r.vec != 14 && has_error_code(t->r.vec) && t->r.err != g->r.err)
        differs(&d, "error code", 0, t->r.err, g->r.err);
    if (t->r.vec == 14 && g->r.vec == 14 && !same_fault(t, g))
        differs(&d, "page fault, cr2", 0, t->r.cr2, g->r.cr2);
    for (unsigned i = 0; i < DATA_LEN; i += 16)
        compare_bytes(&d, "memory", t->r_data, g->data, i, 16);
    if (t->kind & KIND_FP) {
        uint8_t native[512], engine[512];
        memcpy(native, t->r_fx, 512);
        memcpy(engine, g->fx, 512);
        mask_inexact(t, native);
        mask_inexact(t, engine);
        compare_fx(&d, native, engine);
    }
    return !d.n;
}

void check_disassemble(const struct test *t, FILE *to)
{
    ZydisDisassembledInstruction z;
    for (unsigned at = 0, i = 0; i < t->insns; at += t->insn_len[i++]) {
        fprintf(to, "  ");
        for (unsigned j = 0; j < t->insn_len[i]; j++)
            fprintf(to, "%02x ", t->code[at + j]);
        bool ok = ZYAN_SUCCESS(ZydisDisassembleIntel(zydis_mode(t), t->rip + at, t->code + at, t->insn_len[i], &z));
        fprintf(to, " %s\n", ok ? z.text : "(unknown)");
    }
}

/* ---- corpus ---- */

static void put_hex(FILE *f, const char *name, const uint8_t *p, unsigned n)
{
    fprintf(f, "%s", name);
    for (unsigned i = 0; i < n; i++)
        fprintf(f, "%s%02x", i % 32 ? "" : " ", p[i]);
    fprintf(f, "\n");
}

/* One line a field; what is not named is 0. Comments start with '#'. */
int corpus_write(const char *path, const struct test *t)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return -errno;
    fprintf(f, "# group %s\n", group_name(t->group));
    for (unsigned at = 0, i = 0; i < t->insns; at += t->insn_len[i++]) {
        ZydisDisassembledInstruction z;
        if (ZYAN_SUCCESS(ZydisDisassembleIntel(zydis_mode(t), t->rip + at, t->code + at, t->insn_len[i], &z)))
            fprintf(f, "# %s\n", z.text);
    }
    put_hex(f, "code", t->code, t->code_len);
    fprintf(f, "group %u\nrip %" PRIx64 "\nkind %x\nrflags %" PRIx64 "\n", t->group, t->rip, t->kind, t->rflags);
    for (unsigned i = 0; i < 16; i++)
        if (t->gpr[i])
            fprintf(f, "%s %" PRIx64 "\n", reg_names[i], t->gpr[i]);
    put_hex(f, "data", t->data, DATA_LEN);
    if (t->kind & KIND_FP)
        put_hex(f, "fx", t->fx, 416);
    return fclose(f) ? -errno : 0;
}

static unsigned get_hex(const char *s, uint8_t *out, unsigned max)
{
    unsigned n = 0;
    for (; *s && n < max; s++) {
        unsigned b;
        if (*s == ' ')
            continue;
        if (sscanf(s, "%2x", &b) != 1)
            break;
        out[n++] = (uint8_t)b;
        s++;
    }
    return n;
}

static bool corpus_line(struct test *t, char *line)
{
    char *value = strchr(line, ' ');
    if (line[0] == '#' || !value)
        return true;
    *value++ = '\0';
    value[strcspn(value, "\n")] = '\0';
    uint64_t num = strtoull(value, NULL, 16);
    if (!strcmp(line, "code"))
        t->code_len = get_hex(value, t->code, CODE_MAX);
    else if (!strcmp(line, "data"))
        return get_hex(value, t->data, DATA_LEN) == DATA_LEN;
    else if (!strcmp(line, "fx"))
        return get_hex(value, t->fx, 416) == 416;
    else if (!strcmp(line, "group"))
        t->group = (uint8_t)strtoul(value, NULL, 10);
    else if (!strcmp(line, "rip"))
        t->rip = num;
    else if (!strcmp(line, "kind"))
        t->kind = (uint32_t)num;
    else if (!strcmp(line, "rflags"))
        t->rflags = num;
    else
        for (unsigned i = 0; i < 16; i++)
            if (!strcmp(line, reg_names[i])) {
                t->gpr[i] = num;
                return true;
            }
    return true;
}

bool corpus_read(const char *path, struct test *t)
{
    char line[4096];
    bool ok = true;
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "oracle: %s: %s\n", path, strerror(errno));
        return false;
    }
    memset(t, 0, sizeof *t);
    while (ok && fgets(line, sizeof line, f))
        ok = corpus_line(t, line);
    fclose(f);
    ok = ok && group_name(t->group) && t->rip >= CODE_VA && t->rip < CODE_VA + CODE_LEN - SLOT && gen_judge(t);
    if (!ok)
        fprintf(stderr, "oracle: %s: not a test\n", path);
    return ok;
}
