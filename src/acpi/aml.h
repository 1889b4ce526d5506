/* AML terms as bytes. ACPI 6.5, chapter 20 "ACPI Machine Language (AML) Specification". Private to acpi/.
 *
 * A construct with a length is opened and closed: `uint64_t at = aml_device(b, "COM1"); ...; aml_end(b, at);`
 */
#ifndef HEC_ACPI_AML_H
#define HEC_ACPI_AML_H

#include "acpi/bytes.h"

/* ---- constructs with a length ---- */
uint64_t aml_scope(struct bytes *b, const char *name); /* root-relative, one segment: "_SB_" */
uint64_t aml_device(struct bytes *b, const char *name);
uint64_t aml_method(struct bytes *b, const char *name, unsigned args);
uint64_t aml_if(struct bytes *b);
uint64_t aml_else(struct bytes *b);
uint64_t aml_buffer(struct bytes *b, uint64_t size); /* its initial bytes follow */
uint64_t aml_package(struct bytes *b, unsigned elements);
void aml_end(struct bytes *b, uint64_t at);

/* ---- terms ---- */
void aml_seg(struct bytes *b, const char *name);  /* four characters */
void aml_name(struct bytes *b, const char *name); /* Name (name, what follows) */
void aml_int(struct bytes *b, uint64_t val);
void aml_str(struct bytes *b, const char *s);
void aml_eisaid(struct bytes *b, const char *id); /* "PNP0501" as an integer */
void aml_return(struct bytes *b);                 /* the value follows */
void aml_arg(struct bytes *b, unsigned n);
void aml_local(struct bytes *b, unsigned n);
void aml_store(struct bytes *b);                  /* source, target follow */
void aml_less(struct bytes *b);                   /* two operands follow */
void aml_equal(struct bytes *b);                  /* the same */
void aml_not(struct bytes *b);                    /* of a truth value */
void aml_and(struct bytes *b);                    /* of words: two operands and a target follow */
void aml_or(struct bytes *b);                     /* the same */
void aml_uuid(struct bytes *b, const char *uuid); /* "33DB4D5B-1FF7-401C-9657-7441C03DD766" as a buffer */
void aml_arg_field(struct bytes *b, unsigned arg, unsigned offset, const char *name); /* CreateDWordField */
void aml_field(struct bytes *b, unsigned bits, unsigned local, unsigned offset, const char *name); /* Create*Field */

/* ---- resource templates: Name (_CRS, ResourceTemplate () {...}) ---- */
struct aml_crs {
    uint64_t outer, size_at, start;
};
struct aml_crs aml_crs(struct bytes *b);
void aml_crs_end(struct bytes *b, struct aml_crs c);
void aml_res_io(struct bytes *b, uint16_t base, uint8_t len);
void aml_res_irq(struct bytes *b, unsigned irq);
void aml_res_memory(struct bytes *b, uint32_t base, uint32_t len); /* that the device itself uses */
enum aml_space { AML_MEMORY = 0, AML_IO = 1, AML_BUS = 2 };
/* A producer's fixed window [base, base+len); width of the descriptor 2, 4 or 8 bytes. */
void aml_res_window(struct bytes *b, enum aml_space space, unsigned width, uint64_t base, uint64_t len);

#endif
