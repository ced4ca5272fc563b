// What tests of the emulated device share. They are compiled for each architecture, and run once with each.
#pragma once
#include <string>
#include <vector>

#include "cuda/emulation/operands.h"
#include "cuda/launch.cuh"
#include "kernels/test.h"

#define DEVICE_TEXT_(name) #name
#define DEVICE_TEXT(name) DEVICE_TEXT_(name)
#define DEVICE_TEST(name) NAMED_TEST(DEVICE_TEXT(TINYGRAD_NM_DEVICE) " " #name, name)

namespace tinygrad_nm::TINYGRAD_NM_DEVICE {

// Shows operands to kernels, as a call from Python does, and runs these.
class Call {
  public:
    template <class T>
    T* operand(const char* name, std::vector<T>& numbers, bool written, bool writable) {
        operands_.add({.name = name,
                       .begin = reinterpret_cast<const char*>(numbers.data()),
                       .bytes = numbers.size() * sizeof(T),
                       .element = sizeof(T),
                       .written = written,
                       .writable = writable});
        return numbers.data();
    }
    template <class T>
    const T* in(const char* name, std::vector<T>& numbers) {
        return operand(name, numbers, true, false);
    }
    template <class T>
    T* out(const char* name, std::vector<T>& numbers) {
        return operand(name, numbers, false, true);
    }
    template <class T>
    T* inout(const char* name, std::vector<T>& numbers) {
        return operand(name, numbers, true, true);
    }
    // What was thrown; empty: nothing.
    template <class F>
    std::string error(F&& kernels) {
        try {
            operands_.begin();
            kernels();
            operands_.end();
        } catch (const std::exception& e) {
            return e.what();
        }
        return "";
    }

  private:
    emulation::Operands operands_{"test"};
};

// Runs the body once in each order of blocks and threads.
template <class F>
void in_each_order(F&& body) {
    using emulation::Order;
    for (const Order order : {Order::reverse, Order::shuffled, Order::forward}) {
        emulation::set_order(order, 7);
        body(order);
    }
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace tinygrad_nm::TINYGRAD_NM_DEVICE
