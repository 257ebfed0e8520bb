// Tries one of torch's small products where an exception can still be caught; see native.py.
#include <cstdint>

typedef void (*Product)(int64_t M, int64_t N, int64_t K, int64_t lda, int64_t ldb, int64_t ldc, bool add, const void* A,
                        const void* B, float* C, bool pairs);
typedef void (*Release)(bool pairs);

extern "C" int fledge_try(Product product, Release release, bool pairs, int64_t M, int64_t N, int64_t K, const void* A,
                          const void* B, float* C) {
    try {
        product(M, N, K, K, N, N, false, A, B, C, pairs);
        release(pairs);
        return 0;
    } catch (...) {
        return 1;
    }
}
