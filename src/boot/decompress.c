#include "boot/boot_priv.h"

#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define LZ4_BLOCK     (8u << 20) /* most a block of the legacy frame unpacks to */
#define XZ_MEMORY_MAX (UINT64_C(256) << 20)

static const struct {
    const char *name;
    enum compression comp;
    uint8_t len, magic[6];
} magics[] = {
    {"gzip", COMP_GZIP, 2, {0x1f, 0x8b}},
    {"xz", COMP_XZ, 6, {0xfd, '7', 'z', 'X', 'Z', 0}},
    {"zstd", COMP_ZSTD, 4, {0x28, 0xb5, 0x2f, 0xfd}},
    {"lz4", COMP_LZ4, 4, {0x02, 0x21, 0x4c, 0x18}},
    {"bzip2", COMP_OTHER, 3, {'B', 'Z', 'h'}},
    {"lzma", COMP_OTHER, 3, {0x5d, 0, 0}},
    {"lzo", COMP_OTHER, 4, {0x89, 'L', 'Z', 'O'}},
};

enum compression compression_of(const uint8_t *p, uint64_t n, const char **name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(magics); i++)
        if (n >= magics[i].len && !memcmp(p, magics[i].magic, magics[i].len)) {
            *name = magics[i].name;
            return magics[i].comp;
        }
    *name = "unknown";
    return COMP_NONE;
}

/* Each unpacker fills exactly `out_size` bytes, or returns what is wrong. `n` is without the trailing size, but for
 * gzip, whose own trailer it is. */

static const char *unpack_gzip(const uint8_t *p, uint64_t n, uint8_t *out, uint64_t out_size)
{
    z_stream z = {.next_in = (Bytef *)p, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)out_size};
    if (inflateInit2(&z, 15 + 16) != Z_OK)
        return "no host memory";
    int rc = inflate(&z, Z_FINISH);
    bool whole = rc == Z_STREAM_END && z.total_out == out_size;
    bool more = rc == Z_BUF_ERROR && !z.avail_in;
    inflateEnd(&z);
    return whole ? NULL : more ? "it ends too early" : "the data is damaged";
}

static const char *unpack_xz(const uint8_t *p, uint64_t n, uint8_t *out, uint64_t out_size)
{
    lzma_stream s = LZMA_STREAM_INIT;
    s.next_in = p;
    s.avail_in = n;
    s.next_out = out;
    s.avail_out = out_size;
    if (lzma_stream_decoder(&s, XZ_MEMORY_MAX, 0) != LZMA_OK)
        return "no host memory";
    lzma_ret rc = lzma_code(&s, LZMA_FINISH);
    bool whole = rc == LZMA_STREAM_END && !s.avail_out;
    lzma_end(&s);
    if (whole)
        return NULL;
    return rc == LZMA_BUF_ERROR        ? "it ends too early"
           : rc == LZMA_MEMLIMIT_ERROR ? "it wants too large a dictionary"
                                       : "the data is damaged";
}

static const char *unpack_zstd(const uint8_t *p, uint64_t n, uint8_t *out, uint64_t out_size)
{
    size_t frame = ZSTD_findFrameCompressedSize(p, n);
    if (ZSTD_isError(frame))
        return "it ends too early, or is damaged";
    size_t rc = ZSTD_decompress(out, out_size, p, frame);
    return rc == out_size ? NULL : "the data is damaged";
}

static const char *unpack_lz4(const uint8_t *p, uint64_t n, uint8_t *out, uint64_t out_size)
{
    uint64_t done = 0;
    for (uint64_t at = 4; done < out_size;) {
        if (n - at < 4)
            return "it ends too early";
        uint64_t len = ld32(p + at);
        at += 4;
        if (!len || len > n - at)
            return "a block is cut short, or its length is damaged";
        int got = LZ4_decompress_safe((const char *)p + at, (char *)out + done, (int)len,
                                      (int)min_u64(out_size - done, LZ4_BLOCK));
        if (got <= 0)
            return "the data is damaged";
        at += len;
        done += (uint64_t)got;
    }
    return NULL;
}

static const char *unpack(enum compression comp, const uint8_t *p, uint64_t n, uint8_t *out, uint64_t out_size)
{
    switch (comp) {
    case COMP_GZIP:
        return unpack_gzip(p, n, out, out_size);
    case COMP_XZ:
        return unpack_xz(p, n - 4, out, out_size);
    case COMP_ZSTD:
        return unpack_zstd(p, n - 4, out, out_size);
    case COMP_LZ4:
        return unpack_lz4(p, n - 4, out, out_size);
    default:
        return "unknown compression";
    }
}

int decompress(const struct image *im, const uint8_t *p, uint64_t n, uint8_t **out, uint64_t *out_size, struct err *e)
{
    const char *name;
    enum compression comp = compression_of(p, n, &name);
    *out = NULL;
    if (n < 16)
        return err_set(e, -EBADMSG, "kernel %s: its %s payload is cut short", im->name, name);
    *out_size = ld32(p + n - 4);
    if (*out_size < 64 || *out_size > BOOT_KERNEL_MAX)
        return err_set(e, -EBADMSG, "kernel %s: corrupt: its %s payload claims to unpack to %llu bytes", im->name, name,
                       (unsigned long long)*out_size);
    *out = malloc(*out_size);
    if (!*out)
        return err_set(e, -ENOMEM, "kernel %s: no host memory to unpack it (%llu MiB)", im->name,
                       (unsigned long long)(*out_size >> 20));
    const char *wrong = unpack(comp, p, n, *out, *out_size);
    if (!wrong)
        return 0;
    free(*out);
    *out = NULL;
    return err_set(e, -EBADMSG, "kernel %s: corrupt %s payload: %s; get the file again", im->name, name, wrong);
}
