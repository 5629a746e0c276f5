// The two checksums of the contract.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include <openssl/evp.h>

// CRC-32C (Castagnoli) of some bytes, as RFC 3720 has it: polynomial 0x1EDC6F41, reflected.
inline std::uint32_t crc32c(const std::string& bytes) {
  static const std::array<std::uint32_t, 256> table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      std::uint32_t value = byte;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82F63B78u : 0u);
      made[byte] = value;
    }
    return made;
  }();
  std::uint32_t value = 0xFFFFFFFFu;
  for (unsigned char byte : bytes) value = (value >> 8) ^ table[(value ^ byte) & 0xFF];
  return value ^ 0xFFFFFFFFu;
}

// SHA-256 of some bytes, 32 bytes.
inline std::string sha256(const std::string& bytes) {
  std::string digest(32, '\0');
  unsigned int size = 0;
  auto* out = reinterpret_cast<unsigned char*>(&digest[0]);
  if (EVP_Digest(bytes.data(), bytes.size(), out, &size, EVP_sha256(), nullptr) != 1 || size != digest.size()) {
    throw std::runtime_error("libcrypto makes no SHA-256");
  }
  return digest;
}

// Bytes as lower-case hexadecimal digits.
inline std::string hex(const std::string& bytes) {
  static const char digits[] = "0123456789abcdef";
  std::string text;
  for (unsigned char byte : bytes) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}
