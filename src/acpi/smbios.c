#include "acpi/smbios.h"

#include "acpi/bytes.h"

#include <errno.h>
#include <stdio.h>

struct smbios {
    struct bytes b;
    uint16_t handle;
    uint64_t at;    /* start of the structure under way */
    char text[256]; /* its strings, each with its NUL */
    unsigned text_len, strings;
};

static uint16_t begin(struct smbios *s, uint8_t type)
{
    s->at = s->b.len;
    s->text_len = s->strings = 0;
    put(&s->b, type, 1);
    put(&s->b, 0, 1);
    put(&s->b, s->handle, 2);
    return s->handle++;
}

/* Number of a string of this structure; empty strings have none. */
static void string(struct smbios *s, const char *text)
{
    unsigned n = (unsigned)strlen(text) + 1;
    if (n == 1 || s->text_len + n > sizeof s->text) {
        put(&s->b, 0, 1);
        return;
    }
    memcpy(s->text + s->text_len, text, n);
    s->text_len += n;
    put(&s->b, ++s->strings, 1);
}

static void end(struct smbios *s)
{
    if (!s->b.overflow)
        s->b.buf[s->at + 1] = (uint8_t)(s->b.len - s->at);
    put_mem(&s->b, s->text, s->text_len);
    put_zero(&s->b, s->strings ? 1 : 2);
}

static void bios_info(struct smbios *s, const struct smbios_config *c)
{
    begin(s, 0);
    string(s, "Hecaton");
    string(s, c->version);
    put(&s->b, 0xe000, 2);
    string(s, "01/01/2026");
    put(&s->b, 0, 1);
    put(&s->b, 8, 8);       /* characteristics are not told */
    put(&s->b, 0x1c00, 2);  /* virtual machine, UEFI no, targeted content no */
    put(&s->b, 0xffffu, 2); /* release not told */
    put(&s->b, 0xffffu, 2);
    put(&s->b, 0, 2);
    end(s);
}

static void system_info(struct smbios *s, const struct smbios_config *c)
{
    begin(s, 1);
    string(s, "Hecaton");
    string(s, c->product);
    string(s, c->version);
    put(&s->b, 0, 1);
    put_zero(&s->b, 16); /* UUID not set */
    put(&s->b, 6, 1);    /* wake-up: power switch */
    put(&s->b, 0, 2);
    end(s);
}

static void chassis(struct smbios *s)
{
    begin(s, 3);
    string(s, "Hecaton");
    put(&s->b, 1, 1); /* other */
    put_zero(&s->b, 3);
    put(&s->b, 0x02020203u, 4); /* boot-up, power, thermal: unknown or safe; security: none told */
    put_zero(&s->b, 4);
    put_zero(&s->b, 4);
    put(&s->b, 0, 1);
    end(s);
}

static uint8_t count8(uint32_t n)
{
    return (uint8_t)(n > 255 ? 255 : n);
}

/* 7.5 "Processor Information (Type 4)": FFh in a byte says that the 16-bit field counts. */
static void processor(struct smbios *s, const struct smbios_config *c, uint32_t socket)
{
    char name[16];
    snprintf(name, sizeof name, "CPU %u", socket);
    begin(s, 4);
    string(s, name);
    put(&s->b, 3, 1);    /* central processor */
    put(&s->b, 0xfe, 1); /* family: see Processor Family 2 */
    string(s, "Hecaton");
    put(&s->b, 0, 8);
    string(s, c->version);
    put(&s->b, 0, 1);
    put(&s->b, 0, 2);
    put(&s->b, 1000, 2);
    put(&s->b, 1000, 2);
    put(&s->b, 0x41, 1); /* populated, enabled */
    put(&s->b, 1, 1);
    put(&s->b, 0xffffu, 2);
    put(&s->b, 0xffffu, 2);
    put(&s->b, 0xffffu, 2);
    put_zero(&s->b, 3);
    put(&s->b, count8(c->cores), 1);
    put(&s->b, count8(c->cores), 1);
    put(&s->b, count8(c->threads), 1);
    put(&s->b, 4, 2); /* 64-bit capable */
    put(&s->b, 1, 2);
    put(&s->b, c->cores, 2);
    put(&s->b, c->cores, 2);
    put(&s->b, c->threads, 2);
    end(s);
}

static void memory(struct smbios *s, const struct smbios_config *c)
{
    uint64_t mb = c->ram >> 20, kb = c->ram >> 10;
    uint16_t array = begin(s, 16);
    put(&s->b, 1, 1);
    put(&s->b, 3, 1);
    put(&s->b, 6, 1); /* multi-bit ECC */
    put(&s->b, kb < 0x80000000u ? kb : 0x80000000u, 4);
    put(&s->b, 0xfffeu, 2);
    put(&s->b, 1, 2);
    put(&s->b, kb < 0x80000000u ? 0 : c->ram, 8);
    end(s);
    begin(s, 17);
    put(&s->b, array, 2);
    put(&s->b, 0xfffeu, 2);
    put(&s->b, 64, 2);
    put(&s->b, 64, 2);
    put(&s->b, mb < 0x7fff ? mb : 0x7fff, 2);
    put(&s->b, 9, 1); /* DIMM */
    put(&s->b, 0, 1);
    string(s, "DIMM 0");
    put(&s->b, 0, 1);
    put(&s->b, 7, 1); /* RAM */
    put(&s->b, 2, 2);
    put(&s->b, 0, 2);
    put_zero(&s->b, 5);
    put(&s->b, mb < 0x7fff ? 0 : mb, 4);
    put(&s->b, 0, 2);
    put_zero(&s->b, 6);
    end(s);
    begin(s, 19);
    bool wide = c->ram > UINT64_C(0xffffffff) << 10;
    put(&s->b, wide ? UINT32_MAX : 0, 4);
    put(&s->b, wide ? UINT32_MAX : kb - 1, 4);
    put(&s->b, array, 2);
    put(&s->b, 1, 1);
    put(&s->b, 0, 8);
    put(&s->b, wide ? c->ram - 1 : 0, 8);
    end(s);
}

uint64_t smbios_size(const struct smbios_config *c)
{
    return 1024 + (uint64_t)c->sockets * 96;
}

static void entry_point(uint8_t entry[SMBIOS_ENTRY_LEN], gpa_t base, uint64_t len)
{
    struct bytes b = {.buf = entry, .cap = SMBIOS_ENTRY_LEN};
    put_mem(&b, "_SM3_", 5);
    put(&b, 0, 1);
    put(&b, SMBIOS_ENTRY_LEN, 1);
    put(&b, 3, 1);
    put(&b, 7, 1);
    put(&b, 0, 1);
    put(&b, 1, 1);
    put(&b, 0, 1);
    put(&b, len, 4);
    put(&b, base, 8);
    entry[5] = sum_fix(entry, SMBIOS_ENTRY_LEN);
}

int smbios_build(const struct smbios_config *c, gpa_t base, uint8_t *buf, uint64_t cap, uint8_t entry[SMBIOS_ENTRY_LEN],
                 uint64_t *used, struct err *e)
{
    struct smbios s = {.b = {.buf = buf, .cap = cap}};
    bios_info(&s, c);
    system_info(&s, c);
    chassis(&s);
    for (uint32_t i = 0; i < c->sockets; i++)
        processor(&s, c, i);
    memory(&s, c);
    begin(&s, 32);
    put_zero(&s.b, 6);
    put(&s.b, 0, 1); /* no errors */
    end(&s);
    begin(&s, 127);
    end(&s);
    if (s.b.overflow)
        return err_set(e, -ENOSPC, "the SMBIOS structures need more than %llu bytes", (unsigned long long)cap);
    entry_point(entry, base, s.b.len);
    *used = s.b.len;
    return 0;
}
