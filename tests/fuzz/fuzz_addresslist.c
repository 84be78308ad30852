/* The address list of sendmail -t: whatever is handed out is one mailbox, without what could end a line. */
#include <stdint.h>
#include <stdlib.h>

#include "smtp/address.h"
#include "smtp/addresslist.h"

static void found(void *arg, struct str mailbox)
{
    struct smtp_address parsed;
    size_t *octets = arg;
    *octets += mailbox.n;
    if (mailbox.n == 0)
        abort();
    for (size_t i = 0; i < mailbox.n; i++)
        if (mailbox.p[i] == '\n' || mailbox.p[i] == '\r' || mailbox.p[i] == 0)
            abort();
    if (str_find(mailbox, '@') < mailbox.n && !smtp_address_parse(mailbox, &parsed, NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str field = str_slice((const char *)data, n), bad = STR_NONE;
    size_t octets = 0;
    if (!smtp_addresslist_each(field, found, &octets, &bad)) {
        if (bad.n > n || (bad.n && (bad.p < field.p || bad.p + bad.n > field.p + n)))
            abort();
    }
    if (octets > n)
        abort();
    return 0;
}
