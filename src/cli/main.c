#include <stdio.h>

int main(void)
{
    puts("hecaton " HEC_VERSION);
    return 0;
}
