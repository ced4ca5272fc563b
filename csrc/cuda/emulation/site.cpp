#include "cuda/emulation/site.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string_view>
#include <vector>

extern char** environ;

namespace tinygrad_nm::emulation {
namespace {

// What addr2line (of binutils) says of an address: a line for the function there and one for each that it is
// inlined into, from the inside; nothing where it cannot be started.
std::string addr2line(const char* file, const char* address) {
    const char* const arguments[] = {"addr2line", "-i", "-s", "-e", file, address, nullptr};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) return "";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t child;
    const bool started = posix_spawnp(&child, arguments[0], &actions, nullptr,
                                      const_cast<char* const*>(arguments), environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    std::string said;
    char part[512];
    for (ssize_t n; started && (n = read(ends[0], part, sizeof part)) > 0;) said.append(part, size_t(n));
    close(ends[0]);
    if (started) waitpid(child, nullptr, 0);
    return said;
}

// The lines of an address, from the inside, without those of what stands in for CUDA.
std::string lines_text(const std::string& said) {
    std::string all;
    std::istringstream lines(said);
    for (std::string line; std::getline(lines, line);) {
        line = line.substr(0, line.find(' '));  // "gemm.cu:12 (discriminator 3)"
        const std::string_view file = std::string_view(line).substr(0, line.find(':'));
        const bool known = !line.starts_with("??") && !line.ends_with(":?") && !line.ends_with(":0");
        if (!known || file == "launch.cuh" || !(file.ends_with(".cu") || file.ends_with(".cuh"))) continue;
        all += (all.empty() ? " at " : ", called at ") + line;
    }
    return all;
}

}  // namespace

std::string text(const Site& site) {
    Dl_info module;
    link_map* loaded;
    std::string unknown;
    if (site.address && dladdr1(site.address, &module, reinterpret_cast<void**>(&loaded), RTLD_DL_LINKMAP)) {
        char offset[32];  // of the call that the address is behind
        snprintf(offset, sizeof offset, "%#zx", size_t(uintptr_t(site.address) - loaded->l_addr - 1));
        const std::string lines = lines_text(addr2line(module.dli_fname, offset));
        if (!lines.empty()) return lines;
        unknown =
            std::string(" at ") + offset + " of " + module.dli_fname + " (its line: addr2line, of binutils)";
    }
    if (site.line.number == 0) return unknown;
    const std::string_view file = site.line.file;
    return " at " + std::string(file.substr(file.rfind('/') + 1)) + ":" + std::to_string(site.line.number);
}

}  // namespace tinygrad_nm::emulation
