#include "acpi/aml.h"

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_EXT = 0x5b,
    OP_LOCAL0 = 0x60,
    OP_ARG0 = 0x68,
    OP_STORE = 0x70,
    OP_AND = 0x7b,
    OP_OR = 0x7d,
    OP_CREATE_DWORD_FIELD = 0x8a,
    OP_CREATE_BYTE_FIELD = 0x8c,
    OP_NOT = 0x92,
    OP_EQUAL = 0x93,
    OP_LESS = 0x95,
    OP_IF = 0xa0,
    OP_ELSE = 0xa1,
    OP_RETURN = 0xa4,
    EXT_DEVICE = 0x82
};

#define PKG_ROOM 4 /* bytes kept for a PkgLength until it is known */

void aml_seg(struct bytes *b, const char *name)
{
    put_mem(b, name, 4);
}

static uint64_t open_length(struct bytes *b)
{
    uint64_t at = b->len;
    put_zero(b, PKG_ROOM);
    return at;
}

/* ACPI 6.5, 20.2.4 "Package Length Encoding": the length counts its own bytes. */
static unsigned encode_length(uint64_t body, uint8_t out[PKG_ROOM])
{
    if (body + 1 < 0x40) {
        out[0] = (uint8_t)(body + 1);
        return 1;
    }
    unsigned n = body + 2 < 0x1000 ? 2 : body + 3 < 0x100000 ? 3 : 4;
    uint64_t total = body + n;
    out[0] = (uint8_t)((n - 1) << 6 | (total & 0xf));
    for (unsigned i = 1; i < n; i++)
        out[i] = (uint8_t)(total >> (4 + 8 * (i - 1)));
    return n;
}

void aml_end(struct bytes *b, uint64_t at)
{
    uint8_t length[PKG_ROOM];
    if (b->overflow)
        return;
    uint64_t body = b->len - at - PKG_ROOM;
    unsigned n = encode_length(body, length);
    memmove(b->buf + at + n, b->buf + at + PKG_ROOM, body);
    memcpy(b->buf + at, length, n);
    b->len = at + n + body;
}

uint64_t aml_scope(struct bytes *b, const char *name)
{
    put(b, OP_SCOPE, 1);
    uint64_t at = open_length(b);
    put(b, '\\', 1);
    aml_seg(b, name);
    return at;
}

uint64_t aml_device(struct bytes *b, const char *name)
{
    put(b, OP_EXT, 1);
    put(b, EXT_DEVICE, 1);
    uint64_t at = open_length(b);
    aml_seg(b, name);
    return at;
}

uint64_t aml_method(struct bytes *b, const char *name, unsigned args)
{
    put(b, OP_METHOD, 1);
    uint64_t at = open_length(b);
    aml_seg(b, name);
    put(b, args | 8, 1); /* serialized: methods that create named objects must be */
    return at;
}

uint64_t aml_if(struct bytes *b)
{
    put(b, OP_IF, 1);
    return open_length(b);
}

uint64_t aml_else(struct bytes *b)
{
    put(b, OP_ELSE, 1);
    return open_length(b);
}

uint64_t aml_buffer(struct bytes *b, uint64_t size)
{
    put(b, OP_BUFFER, 1);
    uint64_t at = open_length(b);
    aml_int(b, size);
    return at;
}

uint64_t aml_package(struct bytes *b, unsigned elements)
{
    put(b, OP_PACKAGE, 1);
    uint64_t at = open_length(b);
    put(b, elements, 1);
    return at;
}

void aml_name(struct bytes *b, const char *name)
{
    put(b, OP_NAME, 1);
    aml_seg(b, name);
}

void aml_int(struct bytes *b, uint64_t val)
{
    if (val <= 1) {
        put(b, val ? OP_ONE : OP_ZERO, 1);
    } else if (val <= 0xff) {
        put(b, OP_BYTE, 1);
        put(b, val, 1);
    } else if (val <= 0xffff) {
        put(b, OP_WORD, 1);
        put(b, val, 2);
    } else if (val <= UINT32_MAX) {
        put(b, OP_DWORD, 1);
        put(b, val, 4);
    } else {
        put(b, OP_QWORD, 1);
        put(b, val, 8);
    }
}

void aml_str(struct bytes *b, const char *s)
{
    put(b, OP_STRING, 1);
    put_mem(b, s, strlen(s) + 1);
}

static unsigned hex(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* ACPI 6.5, 19.6.36 "EISAID": three letters of five bits, four hex digits, big-endian. */
void aml_eisaid(struct bytes *b, const char *id)
{
    uint32_t v = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 | (uint32_t)(id[2] - '@') << 16 |
                 hex(id[3]) << 12 | hex(id[4]) << 8 | hex(id[5]) << 4 | hex(id[6]);
    put(b, OP_DWORD, 1);
    put(b, __builtin_bswap32(v), 4);
}

void aml_return(struct bytes *b)
{
    put(b, OP_RETURN, 1);
}

void aml_arg(struct bytes *b, unsigned n)
{
    put(b, OP_ARG0 + n, 1);
}

void aml_local(struct bytes *b, unsigned n)
{
    put(b, OP_LOCAL0 + n, 1);
}

void aml_store(struct bytes *b)
{
    put(b, OP_STORE, 1);
}

void aml_less(struct bytes *b)
{
    put(b, OP_LESS, 1);
}

void aml_equal(struct bytes *b)
{
    put(b, OP_EQUAL, 1);
}

void aml_not(struct bytes *b)
{
    put(b, OP_NOT, 1);
}

void aml_and(struct bytes *b)
{
    put(b, OP_AND, 1);
}

void aml_or(struct bytes *b)
{
    put(b, OP_OR, 1);
}

/* ACPI 6.5, 19.6.142 "ToUUID": the first three groups are little-endian. */
void aml_uuid(struct bytes *b, const char *uuid)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    uint8_t byte[16];
    for (unsigned i = 0; i < 16; i++, uuid += 2) {
        uuid += *uuid == '-';
        byte[i] = (uint8_t)(hex(uuid[0]) << 4 | hex(uuid[1]));
    }
    uint64_t buf = aml_buffer(b, sizeof byte);
    for (unsigned i = 0; i < 16; i++)
        put(b, byte[order[i]], 1);
    aml_end(b, buf);
}

void aml_arg_field(struct bytes *b, unsigned arg, unsigned offset, const char *name)
{
    put(b, OP_CREATE_DWORD_FIELD, 1);
    aml_arg(b, arg);
    aml_int(b, offset);
    aml_seg(b, name);
}

void aml_field(struct bytes *b, unsigned bits, unsigned local, unsigned offset, const char *name)
{
    put(b, bits == 8 ? OP_CREATE_BYTE_FIELD : OP_CREATE_DWORD_FIELD, 1);
    aml_local(b, local);
    aml_int(b, offset);
    aml_seg(b, name);
}

/* The template's length is patched in once it is known: a WordConst. */
struct aml_crs aml_crs(struct bytes *b)
{
    struct aml_crs c;
    aml_name(b, "_CRS");
    put(b, OP_BUFFER, 1);
    c.outer = open_length(b);
    put(b, OP_WORD, 1);
    c.size_at = b->len;
    put(b, 0, 2);
    c.start = b->len;
    return c;
}

void aml_crs_end(struct bytes *b, struct aml_crs c)
{
    put(b, 0x79, 1); /* end tag; checksum 0 means "not computed" (6.4.2.9) */
    put(b, 0, 1);
    if (b->overflow)
        return;
    st16(b->buf + c.size_at, (uint16_t)(b->len - c.start));
    aml_end(b, c.outer);
}

/* 6.4.2.5 "I/O Port Descriptor". */
void aml_res_io(struct bytes *b, uint16_t base, uint8_t len)
{
    put(b, 0x47, 1);
    put(b, 1, 1);
    put(b, base, 2);
    put(b, base, 2);
    put(b, 1, 1);
    put(b, len, 1);
}

/* 6.4.2.1 "IRQ Descriptor". */
void aml_res_irq(struct bytes *b, unsigned irq)
{
    put(b, 0x22, 1);
    put(b, 1u << irq, 2);
}

/* 6.4.3.4 "32-Bit Fixed Memory Range Descriptor". */
void aml_res_memory(struct bytes *b, uint32_t base, uint32_t len)
{
    put(b, 0x86, 1);
    put(b, 9, 2);
    put(b, 1, 1); /* may be written */
    put(b, base, 4);
    put(b, len, 4);
}

/* 6.4.3.5 "Address Space Resource Descriptors". */
void aml_res_window(struct bytes *b, enum aml_space space, unsigned width, uint64_t base, uint64_t len)
{
    static const uint8_t type[] = {[2] = 0x88, [4] = 0x87, [8] = 0x8a};
    static const uint8_t specific[] = {[AML_MEMORY] = 3, [AML_IO] = 3, [AML_BUS] = 0};
    put(b, type[width], 1);
    put(b, 3 + 5 * width, 2);
    put(b, space, 1);
    put(b, 0x0c, 1); /* minimum and maximum fixed, producer */
    put(b, specific[space], 1);
    put(b, 0, width);
    put(b, base, width);
    put(b, base + len - 1, width);
    put(b, 0, width);
    put(b, len, width);
}
