# For hands that type make: CMake does the work (README.md).
BUILD ?= build/release
PREFIX ?= /usr/local
all:
	cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release -DWELS_TESTS=OFF
	cmake --build $(BUILD)
install: all
	cmake --install $(BUILD) --prefix $(PREFIX)
deb: all
	cd $(BUILD) && cpack -G DEB
test:
	./test.sh
.PHONY: all install deb test
