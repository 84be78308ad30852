/* The texts of LDAP: what is escaped stays within its filter, and a range never goes back. */
#include <assert.h>
#include <stdint.h>

#include "directory/account.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str in = str_slice((const char *)data, n), attribute = STR_NONE;
    uint32_t next = 0;
    struct buf out;
    buf_init(&out, 3 * n + 1);
    bool ok = account_filter_escape(in, &out);
    assert(ok);
    for (size_t i = 0; i < out.n; i++) {
        assert(out.p[i] != '(' && out.p[i] != ')' && out.p[i] != '*' && out.p[i] >= 0x20 && out.p[i] < 0x7f);
        if (out.p[i] == '\\')
            assert(i + 2 < out.n);
    }
    buf_done(&out);
    if (account_range_parse(in, &attribute, &next))
        assert(attribute.n < n && attribute.p == in.p);
    return 0;
}
