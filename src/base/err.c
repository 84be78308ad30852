#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, args);
        va_end(args);
        err->code = code;
    }
    return code;
}

int err_wrap(struct err *err, int code, const char *fmt, ...)
{
    if (err) {
        char inner[sizeof err->text];
        memcpy(inner, err->text, sizeof inner);
        va_list args;
        va_start(args, fmt);
        int n = vsnprintf(err->text, sizeof err->text, fmt, args);
        va_end(args);
        if (n >= 0 && (size_t)n < sizeof err->text)
            snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", inner);
        err->code = code;
    }
    return code;
}

int err_errno(struct err *err, int saved_errno, const char *fmt, ...)
{
    int code = saved_errno > 0 ? -saved_errno : -EIO;
    if (err) {
        va_list args;
        va_start(args, fmt);
        int n = vsnprintf(err->text, sizeof err->text, fmt, args);
        va_end(args);
        if (n >= 0 && (size_t)n < sizeof err->text)
            snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", strerror(-code));
        err->code = code;
    }
    return code;
}

const char *err_text(const struct err *err)
{
    return err && err->code ? err->text : "no error";
}
