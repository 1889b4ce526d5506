/* acpi_dump SHAPE DIR: write each table of a machine to DIR/SIGNATURE.aml. */
#include "shapes.h"

#include "base/bits.h"

#include <stdio.h>

#define BASE UINT64_C(0x7ff00000)

static void dump(const char *dir, const uint8_t *table)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%.4s.aml", dir, (const char *)table);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(table, ld32(table + 4), 1, f) != 1 || fclose(f)) {
        perror(path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    struct shape s;
    struct err e = {{0}};
    uint8_t rsdp[ACPI_RSDP_LEN];
    uint64_t used;
    if (argc != 3 || shape_init(&s, argv[1]))
        return 2;
    uint64_t cap = acpi_size(&s.c);
    uint8_t *buf = malloc(cap);
    if (acpi_build(&s.c, BASE, buf, cap, rsdp, &used, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    const uint8_t *xsdt = buf + (ld64(rsdp + 24) - BASE);
    for (uint32_t i = 36; i < ld32(xsdt + 4); i += 8)
        dump(argv[2], buf + (ld64(xsdt + i) - BASE));
    const uint8_t *fadt = buf + (ld64(xsdt + 36) - BASE);
    dump(argv[2], buf + (ld64(fadt + 140) - BASE));
    dump(argv[2], buf + (ld32(fadt + 36) - BASE));
    dump(argv[2], xsdt);
    free(buf);
    free(s.ids);
    free(s.node);
    return 0;
}
