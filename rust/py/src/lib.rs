//! The Python extension module: conversion, GIL release and error mapping only.
