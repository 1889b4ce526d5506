#define STORM_64
#include "storm_guest.S"
