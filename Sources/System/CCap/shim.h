#ifndef WARREN_CCAP_H
#define WARREN_CCAP_H
#include <sys/capability.h>
#endif
