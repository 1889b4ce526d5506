#include "cli/command.h"
#include "cli/options_priv.h"

#include <string.h>

#define INDENT 28
#define WIDTH  79

/* `text` word by word from column INDENT, broken before column WIDTH. */
static void wrapped(FILE *out, const char *text)
{
    unsigned col = INDENT;
    while (*text) {
        unsigned len = (unsigned)strcspn(text, " ");
        if (col > INDENT && col + 1 + len > WIDTH) {
            fprintf(out, "\n%*s", INDENT, "");
            col = INDENT;
        }
        col += (unsigned)fprintf(out, "%s%.*s", col > INDENT ? " " : "", (int)len, text);
        text += len + (text[len] == ' ');
    }
    putc('\n', out);
}

void help_item(FILE *out, const char *head, const char *text)
{
    if (fprintf(out, "  %-*s", INDENT - 2, head) > INDENT || strlen(head) > INDENT - 4)
        fprintf(out, "\n%*s", INDENT, "");
    wrapped(out, text);
}

void help_props(FILE *out, const struct prop *props, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char head[128];
        snprintf(head, sizeof head, "%s=%s", props[i].name, props[i].values ? props[i].values : "");
        if (props[i].help)
            help_item(out, head, props[i].help);
    }
}

static void help_commands(FILE *out)
{
    const struct command *c;
    fputs("\nCommands: hecaton COMMAND ...\n", out);
    for (unsigned i = 0; (c = command_at(i)); i++) {
        char head[128];
        snprintf(head, sizeof head, "%s%s%s", c->name, c->args ? " " : "", c->args ? c->args : "");
        help_item(out, head, c->help);
    }
}

void help_options(FILE *out, const struct option_def *defs, size_t n)
{
    fputs("hecaton " HEC_VERSION ": a virtual x86-64 machine with very many CPUs\n"
          "Usage: hecaton -kernel FILE [option...]\n"
          "  hecaton -smp 300 -m 4G -kernel vmlinuz -initrd initrd.gz \\\n"
          "          -append console=ttyS0 -serial stdio\n",
          out);
    for (size_t i = 0; i < n; i++) {
        char head[128];
        if (!defs[i].fn && !defs[i].arg)
            fprintf(out, "\n%s\n", defs[i].name);
        else if (defs[i].help) {
            snprintf(head, sizeof head, "-%s%s%s", defs[i].name, defs[i].arg ? " " : "",
                     defs[i].arg ? defs[i].arg : "");
            help_item(out, head, defs[i].help);
        }
    }
    if (command_at(0))
        help_commands(out);
    fputs("\nOn a terminal, with -serial stdio, Ctrl-A x ends hecaton; Ctrl-A h lists keys.\n"
          "Exit status: 0 the guest ended; 1 it could not be run; 2 wrong usage;\n"
          "(code << 1) | 1 from isa-debug-exit; 128 + the signal that ended hecaton.\n",
          out);
}
