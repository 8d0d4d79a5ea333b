"""Images out of tensors: conversion, PNG files, labelled grids."""
