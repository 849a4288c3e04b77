#ifndef WARREN_CLINUX_H
#define WARREN_CLINUX_H
#endif
