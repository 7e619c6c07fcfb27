#include "event.cpp"
