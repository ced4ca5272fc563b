// A place in a kernel, for messages and to tell barriers apart.
#pragma once
#include <cstring>
#include <string>

namespace tinygrad_nm::emulation {

// The line that calls a function of the device; device functions take it as their last argument.
struct Line {
    const char* file = "";
    int number = 0;
    static constexpr Line here(const char* file = __builtin_FILE(), int number = __builtin_LINE()) {
        return {file, number};
    }
    bool operator==(const Line& b) const {
        return number == b.number && (file == b.file || !strcmp(file, b.file));
    }
};

struct Site {
    const void* address = nullptr;  // of the instruction after the call
    Line line = {};                 // where known: of an access of memory only the address is
};

std::string text(
    const Site& site);  // " at gemm.cu:21, called at tile.cuh:45", from the line tables of a strict build

}  // namespace tinygrad_nm::emulation
