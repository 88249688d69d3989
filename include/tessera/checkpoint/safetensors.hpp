// SPDX-License-Identifier: Apache-2.0
// Reading and writing safetensors files, the format of Hugging Face's weights.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/base/shape.hpp"

namespace tessera::checkpoint {

/// What a file says of one tensor. `stored_type` is the file's own word ("F32", "BF16", "BOOL" …).
struct SafetensorsEntry {
  std::string name;
  std::string stored_type;
  Shape shape;
  std::int64_t begin = 0;  ///< first byte, from the start of the data
  std::int64_t bytes = 0;
};

/// A safetensors file, memory-mapped and checked as a whole before anything is read: header length,
/// JSON, duplicate names, sizes that follow from dtype and shape, data without holes or overlap,
/// file size. Errors: io naming the file and the tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const std::string& path() const;
  /// In the order of the data.
  const std::vector<SafetensorsEntry>& entries() const;
  const std::map<std::string, std::string>& metadata() const;
  bool contains(const std::string& name) const;
  /// Errors: io naming the file and the name, if it is not there.
  const SafetensorsEntry& entry(const std::string& name) const;
  /// Our type of a tensor. Errors: not_supported for types that we do not hold (F8_E4M3, …).
  DType dtype(const std::string& name) const;

  /// Writes shape.numel() elements converted to `target`; floating types convert to each other, the
  /// integers I32, I64, U8 and BOOL (as uint8) only to themselves.
  void read(const std::string& name, DType target, void* out) const;
  /// Elements [begin, begin + count) of the flattened tensor.
  void read_range(const std::string& name, std::int64_t begin, std::int64_t count, DType target,
                  void* out) const;
  /// The stored bytes, in the mapping; may be unaligned.
  const std::byte* data(const std::string& name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One tensor to write; `data` is contiguous in `dtype`.
struct SafetensorsInput {
  std::string name;
  DType dtype = DType::fp32;
  Shape shape;
  const void* data = nullptr;
};

/// Writes a whole file or none (temporary name, then rename), replacing an existing one. Tensors
/// are ordered as the format's own writer does: wider types first, then by name. Metadata
/// `format: pt` is added unless given, because PyTorch's readers want it.
void write_safetensors(const std::string& path, std::span<const SafetensorsInput> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace tessera::checkpoint
