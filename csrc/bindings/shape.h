// The sizes of an array as a value without memory of its own: a kernel call allocates nothing.
#pragma once
#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace tinygrad_nm {

class Shape {
  public:
    static constexpr int most = 64;  // NumPy's limit

    Shape() {}  // the sizes beyond the count are never written or read
    Shape(std::initializer_list<int64_t> sizes) : count_(int(sizes.size())) {
        std::copy(sizes.begin(), sizes.end(), sizes_);
    }
    Shape(const Shape& other) : count_(other.count_) { std::copy(other.begin(), other.end(), sizes_); }
    Shape& operator=(const Shape& other) {
        count_ = other.count_;
        std::copy(other.begin(), other.end(), sizes_);
        return *this;
    }

    size_t size() const { return size_t(count_); }
    int64_t operator[](size_t i) const { return sizes_[i]; }
    const int64_t* begin() const { return sizes_; }
    const int64_t* end() const { return sizes_ + count_; }
    void push_back(int64_t size) { sizes_[count_++] = size; }
    void push_front(int64_t size) {
        std::copy_backward(begin(), end(), sizes_ + count_ + 1);
        sizes_[0] = size;
        ++count_;
    }
    bool operator==(const Shape& other) const {
        return std::equal(begin(), end(), other.begin(), other.end());
    }

  private:
    int count_ = 0;
    int64_t sizes_[most];
};

std::string shape_text(const Shape& shape);  // "(1, 3, 28, 28)"

}  // namespace tinygrad_nm
