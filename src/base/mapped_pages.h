// What the system may take back of mapped files.
#pragma once
#include <cstddef>

namespace wels {

// Says that the whole pages within [p, p + bytes) are not needed for now, where they lie in a
// MappedFile: they no longer count as this process's memory, and are read again (from the system's
// cache, or the disk) when they are touched. Memory of any other kind is left alone.
void drop_mapped_pages(const void* p, size_t bytes);

}  // namespace wels
