/* `hecaton explain`: one interrupt message, I/O APIC entry or ICR value, its whole way in words. */
#ifndef HEC_CLI_EXPLAIN_H
#define HEC_CLI_EXPLAIN_H

#include "irq/irq_msg.h"

#include <stdio.h>

/* A command (cli/command.h). */
int command_explain(int argc, char **argv, FILE *out);

/* ---- explain_fields.c: the bits of a value, a line a field; nothing is decided here ---- */
void explain_msi_fields(FILE *out, struct msi_msg msg);
void explain_rte_fields(FILE *out, uint64_t rte);
void explain_icr_fields(FILE *out, uint64_t icr, bool x2apic);

#endif
