/* now: the clocks. Durations use the monotonic one, what is written down the wall clock. */
#pragma once
#include <stdint.h>

int64_t now_mono_ms(void);
int64_t now_mono_us(void);
int64_t now_wall_ms(void);
/* Fills with octets from the kernel; cannot fail after boot. */
void now_random(void *p, unsigned n);
