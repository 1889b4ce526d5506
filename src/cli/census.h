/* hecaton census: boot our own guest, which starts every CPU and proves every route to every ID. */
#ifndef HEC_CLI_CENSUS_H
#define HEC_CLI_CENSUS_H

#include <stdio.h>

/* `argv` is "census" and machine options, without -kernel. Returns the exit status: 0 if every interrupt was received
 * exactly once and nowhere else, 1 if not or if the machine could not be run, 2 for usage. */
int command_census(int argc, char **argv, FILE *out);

#endif
