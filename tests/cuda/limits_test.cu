// What an architecture does not allow is an error at the launch, or in the kernel where only there it shows.
#include "device_test.h"

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {
namespace {

constexpr size_t most_shared = emulation::most_shared(__CUDA_ARCH__ / 10);

__global__ void nothing() {}
__global__ void with_static_and_dynamic() {
    SHARED(float, tile, [1024]);
    DYNAMIC_SHARED(float, rest);
    tile[0] = rest[0] = 1;
}
template <int bytes>
__global__ void with_static() {
    SHARED(char, first, [1024]);
    SHARED(char, second, [bytes - 1024]);
    first[0] = second[0] = 1;
}

struct Launch {
    dim3 grid, block;
    size_t shared;
    const char* error;  // empty: allowed
};

DEVICE_TEST(shapes_of_launches) {
    const std::string too_many_threads = "a block has at most 1024 threads, and 64 along z";
    const std::string too_many_blocks = "a grid has at most (2147483647, 65535, 65535) blocks";
    const std::string too_much = "a block of this architecture has at most " + std::to_string(most_shared);
    const Launch launches[] = {
        {1, 1, 0, ""},
        {{2, 3, 4}, {4, 4, 64}, 0, ""},
        {1, 1024, 0, ""},
        {{1, 1, 65535}, 1, 0, ""},
        {1, 1, most_shared, ""},
        {0, 1, 0, "a grid has at least one block"},
        {{1, 0, 1}, 1, 0, "a grid has at least one block"},
        {{1, 1, 0}, 1, 0, "a grid has at least one block"},
        {{1, 65536, 1}, 1, 0, too_many_blocks.c_str()},
        {{1, 1, 65536}, 1, 0, too_many_blocks.c_str()},
        {1u << 31, 1, 0, too_many_blocks.c_str()},
        {1, 0, 0, "a block has at least one thread"},
        {1, {8, 0, 1}, 0, "a block has at least one thread"},
        {1, 1025, 0, too_many_threads.c_str()},
        {1, {1, 1, 65}, 0, too_many_threads.c_str()},
        {1, {1u << 31, 1u << 31, 4}, 0, too_many_threads.c_str()},
        {1, 1, most_shared + 1, too_much.c_str()},
    };
    for (const Launch& l : launches) {
        const std::string error = Call().error([&] { LAUNCH(nothing, l.grid, l.block, l.shared); });
        CHECK_THAT(*l.error ? contains(error, l.error) && error.starts_with("nothing: a launch of grid (")
                            : error.empty(),
                   error);
    }
}

DEVICE_TEST(static_shared_memory) {
    CHECK_THAT(Call().error([] { LAUNCH(with_static<48 * 1024>, 1, 1, 0); }).empty(), "allowed");
    const std::string error = Call().error([] { LAUNCH(with_static<48 * 1024 + 16>, 1, 1, 0); });
    CHECK_THAT(error.starts_with(
                   "with_static<48 * 1024 + 16>, block (0, 0, 0), thread (0, 0, 0): declares 49168 bytes "
                   "of static shared memory with second, but a block has at most 49152 at limits_test.cu:"),
               error);
}

DEVICE_TEST(static_and_dynamic_shared_memory_together) {
    CHECK_THAT(Call().error([] { LAUNCH(with_static_and_dynamic, 1, 1, most_shared - 4096); }).empty(),
               "allowed");
    const std::string error = Call().error([] { LAUNCH(with_static_and_dynamic, 1, 1, most_shared - 4095); });
    CHECK_THAT(contains(error, "has 4096 bytes of static shared memory with tile and " +
                                   std::to_string(most_shared - 4095) +
                                   " of dynamic, but a block of this architecture has at most " +
                                   std::to_string(most_shared) + " together at limits_test.cu:"),
               error);
}

}  // namespace
}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
