#include "dev/block_priv.h"

const char *const block_formats[] = {"raw", "bochs", "cloop", "dmg",  "parallels", "qcow", "qcow2",
                                     "qed", "vdi",   "vhdx",  "vmdk", "vpc",       NULL};

struct magic {
    const char *format, *bytes;
    unsigned len, at;
};

/* What QEMU would take the image for that is not told either. */
static const struct magic magics[] = {
    {"qcow2", "QFI\xfb\0\0\0\x02", 8, 0},
    {"qcow2", "QFI\xfb\0\0\0\x03", 8, 0},
    {"qcow", "QFI\xfb\0\0\0\x01", 8, 0},
    {"vmdk", "KDMV", 4, 0},
    {"vmdk", "COWD", 4, 0},
    {"vmdk", "# Disk DescriptorFile", 21, 0},
    {"vdi", "\x7f\x10\xda\xbe", 4, 64},
    {"vhdx", "vhdxfile", 8, 0},
    {"vpc", "conectix", 8, 0},
    {"qed", "QED\0", 4, 0},
    {"parallels", "WithoutFreeSpace", 16, 0},
    {"parallels", "WithouFreSpacExt", 16, 0},
    {"bochs", "Bochs Virtual HD Image", 22, 0},
};

const char *block_probe(const void *bytes, size_t n)
{
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        const struct magic *m = &magics[i];
        if (n >= m->at + m->len && !memcmp((const char *)bytes + m->at, m->bytes, m->len))
            return m->format;
    }
    return NULL;
}
