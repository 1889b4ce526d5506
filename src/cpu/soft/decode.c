#include "cpu/soft/decode_tables.h"

#include "base/bits.h"

enum { MAX_LEN = 15, SLACK = 40 }; /* no encoding, however long its prefixes, reads past SLACK bytes */

/* ---- prefixes ---- */

enum { PFX_NONE, PFX_OPSIZE, PFX_ADDR, PFX_LOCK, PFX_REP, PFX_REPNE, PFX_SEG, PFX_FSGS, PFX_REX };

static const uint8_t prefix_class[256] = {
    [0x26] = PFX_SEG,  [0x2e] = PFX_SEG,   [0x36] = PFX_SEG,    [0x3e] = PFX_SEG,
    [0x64] = PFX_FSGS, [0x65] = PFX_FSGS,  [0x66] = PFX_OPSIZE, [0x67] = PFX_ADDR,
    [0xf0] = PFX_LOCK, [0xf2] = PFX_REPNE, [0xf3] = PFX_REP,    [0x40 ... 0x4f] = PFX_REX,
};

enum { SEG_DEFAULT = 0xff };

struct dec {
    const uint8_t *p; /* SLACK readable bytes */
    unsigned n;       /* cursor */
    enum code_size mode;
    uint8_t rex;
    uint8_t seg; /* override or SEG_DEFAULT */
    uint8_t addr;
    uint8_t regno; /* ModRM.reg without REX.R */
    uint8_t mod;
};

static void take_prefix(struct dec *d, struct insn *in, unsigned class, uint8_t byte)
{
    switch (class) {
    case PFX_OPSIZE:
        in->flags |= INSN_OPSIZE;
        break;
    case PFX_ADDR:
        d->addr = 1;
        break;
    case PFX_LOCK:
        in->flags |= INSN_LOCK;
        break;
    case PFX_REP:
        in->flags = (uint16_t)((in->flags & ~INSN_REPNE) | INSN_REP);
        break;
    case PFX_REPNE:
        in->flags = (uint16_t)((in->flags & ~INSN_REP) | INSN_REPNE);
        break;
    case PFX_SEG:
        if (d->mode != CODE64)
            d->seg = byte >> 3 & 3;
        break;
    case PFX_FSGS:
        d->seg = byte - 0x64 + SEG_FS;
        break;
    default:
        break;
    }
}

/* Leaves the cursor on the opcode. False: more prefixes than an instruction has bytes. */
static bool prefixes(struct dec *d, struct insn *in)
{
    for (;;) {
        uint8_t byte = d->p[d->n];
        unsigned class = prefix_class[byte];
        if (class == PFX_NONE || (class == PFX_REX && d->mode != CODE64))
            return true;
        if (++d->n >= MAX_LEN)
            return false;
        if (class != PFX_REX)
            take_prefix(d, in, class, byte);
        else if (prefix_class[d->p[d->n]] == PFX_NONE)
            d->rex = byte; /* a REX that is not right before the opcode counts for nothing */
    }
}

/* ---- ModRM ---- */

static void disp8(struct dec *d, struct insn *in)
{
    in->disp = (int8_t)d->p[d->n];
    d->n += 1;
}

static void disp32(struct dec *d, struct insn *in)
{
    in->disp = (int32_t)ld32(d->p + d->n);
    d->n += 4;
}

/* SDM 2, "16-Bit Addressing Forms with the ModR/M Byte" */
static void address16(struct dec *d, struct insn *in)
{
    static const uint8_t base[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
    static const uint8_t index[8] = {RSI, RDI, RSI, RDI, INSN_NO_REG, INSN_NO_REG, INSN_NO_REG, INSN_NO_REG};
    unsigned rm = in->rm & 7;
    in->base = base[rm];
    in->index = index[rm];
    if (d->mod == 1) {
        disp8(d, in);
    } else if (d->mod == 2 || rm == 6) {
        if (d->mod == 0)
            in->base = INSN_NO_REG;
        in->disp = (int16_t)ld16(d->p + d->n);
        d->n += 2;
    }
    in->seg = in->base == RBP ? SEG_SS : SEG_DS;
}

/* SDM 2, "32-Bit Addressing Forms with the SIB Byte" */
static void sib(struct dec *d, struct insn *in)
{
    uint8_t byte = d->p[d->n++];
    unsigned index = (byte >> 3 & 7) | (d->rex & 2) << 2;
    in->scale = byte >> 6;
    in->index = index == RSP ? INSN_NO_REG : (uint8_t)index;
    in->base = (byte & 7) | (d->rex & 1) << 3;
    if ((byte & 7) == RBP && d->mod == 0) {
        in->base = INSN_NO_REG;
        disp32(d, in);
    }
}

/* SDM 2, "32-Bit Addressing Forms with the ModR/M Byte" and "RIP-Relative Addressing" */
static void address32(struct dec *d, struct insn *in)
{
    unsigned rm = in->modrm & 7;
    in->index = INSN_NO_REG;
    if (rm == RSP) {
        sib(d, in);
    } else if (rm == RBP && d->mod == 0) {
        in->base = d->mode == CODE64 ? INSN_RIP : INSN_NO_REG;
        disp32(d, in);
    } else {
        in->base = in->rm;
    }
    if (d->mod == 1)
        disp8(d, in);
    else if (d->mod == 2)
        disp32(d, in);
    in->seg = in->base == RSP || in->base == RBP ? SEG_SS : SEG_DS;
}

static void modrm_byte(struct dec *d, struct insn *in)
{
    uint8_t byte = d->p[d->n++];
    in->flags |= INSN_MODRM;
    in->modrm = byte;
    d->mod = byte >> 6;
    d->regno = byte >> 3 & 7;
    in->reg = d->regno | (d->rex & 4) << 1;
    in->rm = (byte & 7) | (d->rex & 1) << 3;
}

static void modrm_address(struct dec *d, struct insn *in)
{
    in->flags |= INSN_MEM;
    if (in->addrsize == 2)
        address16(d, in);
    else
        address32(d, in);
    if (d->seg != SEG_DEFAULT)
        in->seg = d->seg;
}

/* ---- the opcode ---- */

/* The instruction an entry stands for once everything it depends on has been looked at. */
static const struct dec_entry *resolve(const struct dec *d, const struct insn *in, const struct dec_entry *e)
{
    for (;;) {
        unsigned i;
        switch (e->kind) {
        case DK_REG:
            i = d->regno;
            break;
        case DK_RM:
            i = in->modrm & 7;
            break;
        case DK_PFX:
            i = in->prefix;
            break;
        case DK_MOD:
            i = d->mod == 3;
            break;
        case DK_MODE:
            i = d->mode == CODE64;
            break;
        case DK_REXB:
            i = d->rex & 1;
            break;
        default:
            return e;
        }
        e = &dec_rows[e->op][i];
    }
}

static const struct dec_entry *opcode(struct dec *d, struct insn *in)
{
    in->opcode = d->p[d->n++];
    if (in->opcode == 0x0f) {
        in->map = 1;
        in->opcode = d->p[d->n++];
        if (in->opcode == 0x38 || in->opcode == 0x3a) {
            in->map = in->opcode == 0x38 ? 2 : 3;
            in->opcode = d->p[d->n++];
        }
    }
    in->cond = in->opcode & 15;
    in->prefix = in->flags & INSN_REP ? 2 : in->flags & INSN_REPNE ? 3 : in->flags & INSN_OPSIZE ? 1 : 0;
    const struct dec_entry *e = &dec_map[in->map][in->opcode];
    if (e->flags & DF_MODRM)
        modrm_byte(d, in);
    return resolve(d, in, e);
}

static void sizes(struct dec *d, struct insn *in, unsigned flags)
{
    bool p66 = in->flags & INSN_OPSIZE;
    in->addrsize = d->mode == CODE64 ? (d->addr ? 4 : 8) : (d->mode == CODE16) == d->addr ? 4 : 2;
    if (d->rex & 8)
        in->opsize = 8;
    else if (d->mode == CODE64 && (flags & (DF_D64 | DF_F64)))
        in->opsize = p66 && !(flags & DF_F64) ? 2 : 8;
    else
        in->opsize = (d->mode == CODE16) != p66 ? 2 : 4;
    if (!(flags & (DF_BYTE | DF_Z | DF_WIDE | DF_Y)))
        return;
    if (flags & DF_BYTE)
        in->opsize = 1;
    else if (flags & DF_WIDE)
        in->opsize = d->mode == CODE64 ? 8 : 4;
    else if (flags & DF_Z ? in->opsize == 8 : in->opsize == 2)
        in->opsize = 4;
}

/* ---- operands ---- */

enum { FK_NONE, FK_REG, FK_RM, FK_MEM, FK_IMM };                        /* how an operand is found */
enum { FR_REG = 8, FR_RM = 9, FR_Z = 10, FR_SREG = 11, FR_SEGOP = 12 }; /* register source; below 8: itself */
enum { FS_0, FS_1, FS_2, FS_4, FS_V, FS_Y, FS_Z };                      /* operand size */

static const struct form {
    uint8_t kind, reg, size;
} forms[DO_COUNT] = {
    [DO_Eb] = {FK_RM, FR_RM, FS_1},        [DO_Ew] = {FK_RM, FR_RM, FS_2},   [DO_Ed] = {FK_RM, FR_RM, FS_4},
    [DO_Ez] = {FK_RM, FR_RM, FS_Z},        [DO_Ev] = {FK_RM, FR_RM, FS_V},   [DO_Ey] = {FK_RM, FR_RM, FS_Y},
    [DO_Evw] = {FK_RM, FR_RM, FS_V},       [DO_Rd] = {FK_REG, FR_RM, FS_4},  [DO_Rv] = {FK_REG, FR_RM, FS_V},
    [DO_Gb] = {FK_REG, FR_REG, FS_1},      [DO_Gw] = {FK_REG, FR_REG, FS_2}, [DO_Gv] = {FK_REG, FR_REG, FS_V},
    [DO_Gy] = {FK_REG, FR_REG, FS_Y},      [DO_Zb] = {FK_REG, FR_Z, FS_1},   [DO_Zv] = {FK_REG, FR_Z, FS_V},
    [DO_Ma] = {FK_MEM, 0, FS_0},           [DO_Mv] = {FK_MEM, 0, FS_V},      [DO_AL] = {FK_REG, RAX, FS_1},
    [DO_CL] = {FK_REG, RCX, FS_1},         [DO_rAX] = {FK_REG, RAX, FS_V},   [DO_DX] = {FK_REG, RDX, FS_2},
    [DO_Ib] = {FK_IMM, 0, FS_1},           [DO_Iv] = {FK_IMM, 0, FS_V},      [DO_Sw] = {FK_REG, FR_SREG, FS_2},
    [DO_SegOp] = {FK_REG, FR_SEGOP, FS_2}, [DO_ES] = {FK_REG, SEG_ES, FS_2}, [DO_SS] = {FK_REG, SEG_SS, FS_2},
    [DO_DS] = {FK_REG, SEG_DS, FS_2},      [DO_FS] = {FK_REG, SEG_FS, FS_2}, [DO_GS] = {FK_REG, SEG_GS, FS_2},
    [DO_C] = {FK_REG, FR_REG, FS_V},
};

/* Fill `o`; false if the form wants memory and ModRM names a register. */
static bool operand(const struct insn *in, const uint8_t regs[16], unsigned form, struct opnd *o)
{
    static const uint8_t fixed_size[] = {0, 1, 2, 4};
    static const uint8_t sizes_of[3][9] = {{[1] = 1, [2] = 2, [4] = 4, [8] = 8},  /* V */
                                           {[1] = 4, [2] = 4, [4] = 4, [8] = 8},  /* Y */
                                           {[1] = 1, [2] = 2, [4] = 4, [8] = 4}}; /* Z */
    static const uint8_t kinds[] = {OPND_NONE, OPND_REG, OPND_REG, OPND_MEM, OPND_IMM};
    const struct form *f = &forms[form];
    bool mem = in->flags & INSN_MEM;
    o->kind = f->kind == FK_RM && mem ? OPND_MEM : kinds[f->kind];
    o->size = f->size < FS_V ? fixed_size[f->size] : sizes_of[f->size - FS_V][in->opsize];
    if (o->kind == OPND_REG) {
        o->reg = regs[f->reg];
        if (o->size == 1 && !(in->flags & INSN_REX) && o->reg >= 4 && f->reg >= FR_REG)
            o->reg += OPND_AH - 4;
    } else if (form == DO_Evw) {
        o->size = 2;
    }
    return f->kind != FK_MEM || mem;
}

static bool operands(const struct dec *d, struct insn *in, const struct dec_entry *e)
{
    uint8_t regs[16] = {0, 1, 2, 3, 4, 5, 6, 7};
    regs[FR_REG] = in->reg;
    regs[FR_RM] = in->rm;
    regs[FR_Z] = (in->opcode & 7) | (d->rex & 1) << 3;
    regs[FR_SREG] = d->regno;
    regs[FR_SEGOP] = in->opcode >> 3 & 7;
    if (e->dst && !operand(in, regs, e->dst, &in->dst))
        return false;
    if (e->src && !operand(in, regs, e->src, &in->src))
        return false;
    return !e->src2 || operand(in, regs, e->src2, &in->src2);
}

/* ---- immediates ---- */

static void imm_by_opsize(struct dec *d, struct insn *in, bool wide)
{
    const uint8_t *p = d->p + d->n;
    unsigned size = in->opsize == 8 && !wide ? 4 : in->opsize;
    in->imm = size == 2 ? (uint64_t)(int16_t)ld16(p) : size == 4 ? (uint64_t)(int32_t)ld32(p) : ld64(p);
    d->n += size;
}

static void imm_far(struct dec *d, struct insn *in)
{
    in->imm = in->opsize == 2 ? ld16(d->p + d->n) : ld32(d->p + d->n);
    d->n += in->opsize;
    in->imm2 = ld16(d->p + d->n);
    d->n += 2;
}

static void imm_moffs(struct dec *d, struct insn *in)
{
    const uint8_t *p = d->p + d->n;
    in->disp = (int64_t)(in->addrsize == 2 ? ld16(p) : in->addrsize == 4 ? ld32(p) : ld64(p));
    in->seg = d->seg == SEG_DEFAULT ? SEG_DS : d->seg;
    d->n += in->addrsize;
}

static void immediate(struct dec *d, struct insn *in, unsigned kind)
{
    const uint8_t *p = d->p + d->n;
    switch (kind) {
    case DI_IB:
        in->imm = (uint64_t)(int8_t)*p;
        d->n++;
        break;
    case DI_UB:
        in->imm = *p;
        d->n++;
        break;
    case DI_UW:
        in->imm = ld16(p);
        d->n += 2;
        break;
    case DI_IZ:
    case DI_V:
        imm_by_opsize(d, in, kind == DI_V);
        break;
    case DI_1:
        in->imm = 1;
        break;
    case DI_FAR:
        imm_far(d, in);
        break;
    case DI_ENTER:
        in->imm = ld16(p);
        in->imm2 = p[2];
        d->n += 3;
        break;
    case DI_MOFFS:
        imm_moffs(d, in);
        break;
    default:
        break;
    }
}

/* ---- what does not fit the tables ---- */

static void implicit_address(const struct dec *d, struct insn *in, unsigned flags)
{
    in->flags |= INSN_MEM;
    in->base = flags & DF_BX ? RBX : flags & DF_SRC_SI ? RSI : RDI;
    in->seg = flags & DF_DST_DI ? SEG_ES : d->seg == SEG_DEFAULT ? SEG_DS : d->seg;
}

/* Registers that do not exist: #UD whatever the state. */
static bool bad_register(const struct dec *d, const struct insn *in)
{
    switch (in->op) {
    case OP_mov_to_seg:
        return d->regno == SEG_CS || d->regno > SEG_GS;
    case OP_mov_from_seg:
        return d->regno > SEG_GS;
    case OP_mov_to_cr:
    case OP_mov_from_cr:
        return in->reg != 0 && in->reg != 2 && in->reg != 3 && in->reg != 4 && in->reg != 8;
    case OP_mov_to_dr:
    case OP_mov_from_dr:
        return in->reg > 7;
    default:
        return false;
    }
}

static bool allowed(const struct dec *d, const struct insn *in, const struct dec_entry *e)
{
    unsigned f = e->flags;
    if ((f & DF_I64 && d->mode == CODE64) || (f & DF_O64 && d->mode != CODE64))
        return false;
    if (f & DF_NP && in->prefix)
        return false;
    if (in->flags & INSN_LOCK && !(f & DF_LOCK && in->flags & INSN_MEM && in->dst.kind == OPND_MEM))
        return false;
    return true;
}

static enum decode_status finish(struct insn *in, unsigned n, unsigned avail, enum decode_status status)
{
    if (n > avail)
        return avail == MAX_LEN ? DECODE_LONG : DECODE_MORE;
    in->len = (uint8_t)n;
    return status;
}

static enum decode_status decode_padded(struct dec *d, unsigned avail, struct insn *in)
{
    *in = (struct insn){.base = INSN_NO_REG, .index = INSN_NO_REG, .seg = SEG_DS};
    if (!prefixes(d, in))
        return avail == MAX_LEN ? DECODE_LONG : DECODE_MORE;
    /* For MASKMOVQ and MASKMOVDQU, whose memory operand no ModRM names. */
    if (d->seg != SEG_DEFAULT)
        in->seg = d->seg;
    if (d->rex)
        in->flags |= d->rex & 8 ? INSN_REX | INSN_REX_W : INSN_REX;
    const struct dec_entry *e = opcode(d, in);
    if (e->kind == DK_UD)
        return finish(in, d->n, avail, DECODE_UD);
    in->op = e->op;
    sizes(d, in, e->flags);
    if (in->flags & INSN_MODRM && d->mod != 3 && !(e->flags & DF_RMREG))
        modrm_address(d, in);
    else if (e->flags & (DF_SRC_SI | DF_DST_DI | DF_BX))
        implicit_address(d, in, e->flags);
    else if (e->imm == DI_MOFFS)
        in->flags |= INSN_MEM;
    else if (d->seg != SEG_DEFAULT)
        in->seg = d->seg; /* MASKMOVQ and MASKMOVDQU imply their address */
    bool ok = operands(d, in, e) && allowed(d, in, e) && !bad_register(d, in);
    immediate(d, in, e->imm);
    if (in->op == OP_cmpxchg8b && d->rex & 8)
        in->op = OP_cmpxchg16b;
    return finish(in, d->n, avail, ok ? DECODE_OK : DECODE_UD);
}

enum decode_status decode_insn(const uint8_t *bytes, unsigned avail, enum code_size mode, struct insn *out)
{
    uint8_t padded[SLACK];
    struct dec d = {.p = bytes, .mode = mode, .seg = SEG_DEFAULT};
    if (avail < SLACK) {
        memset(padded, 0, sizeof padded);
        memcpy(padded, bytes, avail);
        d.p = padded;
    }
    return decode_padded(&d, avail < MAX_LEN ? avail : MAX_LEN, out);
}

const char *op_name(unsigned op)
{
    static const char *const names[] = {
#define OP(id, group) #id,
#include "cpu/soft/ops.def"
#undef OP
    };
    return op < OP_COUNT ? names[op] : "?";
}
